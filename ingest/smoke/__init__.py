"""The check of an installation: does everything that an image needs run on this machine?"""
