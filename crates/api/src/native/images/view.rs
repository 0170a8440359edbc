//! Images as they are shown.

use jiff::Timestamp;
use serde::Serialize;
use strongroom_catalog::images as known;
use strongroom_storage::ImageDetails;
use utoipa::ToSchema;

/// An image.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Image {
    /// Its number.
    id: i64,
    /// The pool that has it.
    pool_id: i64,
    /// Whose it is.
    organisation_id: i64,
    /// Its id in the pool: 32 hexadecimal digits.
    root: String,
    /// The one that it was compared with.
    parent: Option<String>,
    /// The series that it belongs to.
    name: String,
    /// `files`, `block` or `stream`.
    kind: String,
    /// The machine that it was made of.
    host: String,
    /// Who made it.
    user_name: String,
    /// What was asked for.
    paths: Vec<String>,
    /// Its labels.
    tags: Vec<String>,
    /// Whether nothing failed to be read.
    complete: bool,
    /// When it was begun, by its machine's clock.
    started_at: Timestamp,
    /// When it was made, by the pool's clock.
    created_at: Timestamp,
    /// When it is to be forgotten.
    expires_at: Option<Timestamp>,
    /// Until when nothing may remove it, by the pool's clock.
    immutable_until: Option<Timestamp>,
    /// Regular files.
    files: u64,
    /// Bytes of content.
    size: u64,
    /// Bytes that the pool did not have.
    new_size: u64,
    /// Bytes that those take in packs.
    stored_size: u64,
    /// The job that made it.
    job_id: Option<i64>,
    /// Counts changes; the `ETag`.
    version: i64,
}

impl From<known::Image> for Image {
    fn from(image: known::Image) -> Self {
        Self {
            id: image.id,
            pool_id: image.pool_id,
            organisation_id: image.organisation_id,
            root: image.root,
            parent: image.parent,
            name: image.name,
            kind: image.kind,
            host: image.host,
            user_name: image.user_name,
            paths: image.paths,
            tags: image.tags,
            complete: image.complete,
            started_at: image.started_at,
            created_at: image.created_at,
            expires_at: image.expires_at,
            immutable_until: image.immutable_until,
            files: image.files,
            size: image.size,
            new_size: image.new_size,
            stored_size: image.stored_size,
            job_id: image.job_id,
            version: image.version,
        }
    }
}

/// All that is known of an image.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ImageState {
    /// The image.
    image: Image,
    /// The program that made it.
    program: String,
    /// What was left out.
    excludes: Vec<String>,
    /// When it was done, by its machine's clock.
    ended_at: Timestamp,
    /// Directories.
    dirs: u64,
    /// Links, devices and the like.
    others: u64,
    /// Files that were taken over unread.
    reused_files: u64,
    /// Files and directories with trouble.
    troubles: u64,
}

impl From<ImageDetails> for ImageState {
    fn from(details: ImageDetails) -> Self {
        Self {
            image: details.image.into(),
            program: details.program,
            excludes: details.excludes,
            ended_at: details.ended_at,
            dirs: details.dirs,
            others: details.others,
            reused_files: details.reused_files,
            troubles: details.troubles,
        }
    }
}
