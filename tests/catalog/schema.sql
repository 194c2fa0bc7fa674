-- The application's tables, as docs/catalog.md describes them: what its migrations make of them.
CREATE TABLE books (
    id serial PRIMARY KEY,
    title varchar(500) NOT NULL DEFAULT '',
    status varchar(20) NOT NULL DEFAULT 'ON_HAND'
);
CREATE TABLE book_images (
    id serial PRIMARY KEY,
    book_id integer NOT NULL REFERENCES books (id) ON DELETE CASCADE,
    s3_key varchar(500) NOT NULL,
    cloudfront_url varchar(500),
    image_type varchar(50),
    display_order integer NOT NULL,
    is_primary boolean NOT NULL,
    caption text,
    original_filename varchar(255),
    content_hash varchar(64),
    is_background_processed boolean NOT NULL DEFAULT false
);
CREATE INDEX ix_book_images_content_hash ON book_images (book_id, content_hash);
CREATE TABLE image_processing_jobs (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    book_id integer NOT NULL REFERENCES books (id) ON DELETE CASCADE,
    source_image_id integer REFERENCES book_images (id) ON DELETE SET NULL,
    processed_image_id integer REFERENCES book_images (id) ON DELETE SET NULL,
    status varchar(20) NOT NULL DEFAULT 'pending',
    attempt_count integer NOT NULL DEFAULT 0,
    model_used varchar(50),
    failure_reason text,
    created_at timestamptz DEFAULT now(),
    updated_at timestamptz DEFAULT now(),
    completed_at timestamptz,
    queue_retry_count integer NOT NULL DEFAULT 0
);
CREATE INDEX ix_image_processing_jobs_book_id ON image_processing_jobs (book_id);
CREATE INDEX ix_image_processing_jobs_status ON image_processing_jobs (status);
CREATE INDEX ix_image_processing_jobs_query
    ON image_processing_jobs (book_id, source_image_id, status);
CREATE UNIQUE INDEX ix_image_processing_jobs_pending_unique
    ON image_processing_jobs (book_id, source_image_id) WHERE status IN ('pending', 'processing');
