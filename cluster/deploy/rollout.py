"""The way of a release into a cluster, and back to the one before if it does not serve."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from cluster.deploy.kubectl import Kubectl
from cluster.deploy.release import RAY_SERVICE, REVISION_LABEL, Release, release_of
from cluster.deploy.verification import Verification
from cluster.deploy.waiting import DeploymentFailed


class NotRolledBack(DeploymentFailed):
    """The release failed, and no release before it serves either."""


@dataclass(frozen=True, slots=True)
class Deployed:
    """The release that a cluster has before a deployment."""

    manifest: str
    """The RayService as it was applied, as JSON."""
    release: Release


@dataclass(frozen=True, slots=True)
class Rollout:
    """A deployment to one namespace of one cluster."""

    kubectl: Kubectl
    verification: Verification
    overlay: Path
    """Folder of the overlay in `cluster/kubernetes`."""
    folder: Path
    """Folder for the kustomization that is applied."""
    environment: Path | None
    """File with the environment of every pod, or None for that of the overlay alone."""
    report: Callable[[str], None] = field(repr=False)
    """Called with a line for each step."""

    def deploy(self, release: Release) -> None:
        """Deploy a release and check it. If it fails, return to the one before.

        Raises:
            DeploymentFailed: The release failed. The one before serves again, or nothing was
                changed.
            NotRolledBack: The release failed, and there is no release before it that serves.
            KeyboardInterrupt: The deployment was interrupted. The release before was applied
                again, and nobody waited for it.
        """
        before = self._read_before()
        release.write_overlay(self.overlay, self.folder, self.environment)
        try:
            self.kubectl.apply_folder(self.folder)
            self.report(f"applied {release.image} of revision {release.revision}")
            self.verification.verify(release)
        except DeploymentFailed as error:
            self.report(f"failed: {error}")
            self._roll_back(before, error)
            raise
        except KeyboardInterrupt:
            if before is not None:
                self._apply_again(before)
            raise

    def _read_before(self) -> Deployed | None:
        """Return the deployed release, or None if there is none.

        Raises:
            DeploymentFailed: It cannot be read, or names no release to return to.
        """
        manifest = self.kubectl.last_applied("rayservice", RAY_SERVICE)
        if manifest is None:
            self.report("nothing is deployed yet, so there is nothing to return to")
            return None
        try:
            before = Deployed(manifest, release_of(json.loads(manifest)))
        except DeploymentFailed as error:
            raise DeploymentFailed(
                f"the deployed RayService {RAY_SERVICE} is no release to return to: {error}. "
                f"Apply it once more with its image by digest and the label {REVISION_LABEL}, as "
                "docs/operations/kubernetes.md does, and repeat the command. Nothing was changed"
            ) from error
        self.report(f"deployed now: {before.release.image} of revision {before.release.revision}")
        return before

    def _roll_back(self, before: Deployed | None, reason: DeploymentFailed) -> None:
        """Return to the release before.

        Raises:
            NotRolledBack: There is none, or it does not serve either.
        """
        if before is None:
            raise NotRolledBack(f"{reason}. There is no release before it to return to") from reason
        try:
            self._apply_again(before)
            self.verification.verify(before.release)
        except DeploymentFailed as error:
            raise NotRolledBack(
                f"{reason}. {before.release.image} does not serve either: {error}"
            ) from reason
        self.report(f"revision {before.release.revision} serves again")

    def _apply_again(self, before: Deployed) -> None:
        # All of the RayService, since settings of the new release may be unknown to this one.
        self.kubectl.apply_text(before.manifest)
        self.report(f"applied {before.release.image} of revision {before.release.revision} again")
