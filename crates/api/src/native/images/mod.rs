//! Images: what was backed up.

mod content;
mod tree;
mod view;

use jiff::Timestamp;
use serde::Deserialize;
use strongroom_catalog::images as known;
use strongroom_identity::Right;
use strongroom_storage::{Error, Retaining, TagChange};
use utoipa::ToSchema;

use self::view::{Image, ImageState};
use super::paths::{ImagePath, Images};
use crate::access::On;
use crate::call::Call;
use crate::problem::{Code, Result};
use crate::route::{
    Body, Empty, Group, IfMatch, Items, Listing, Path, Tagged, delete, get, patch, put,
};

pub(super) fn group() -> Group {
    let image = On::Image("image");
    let refused = [Code::Invalid, Code::Conflict];
    Group::new(
        "Images",
        "What was backed up, as it was then.",
        [
            get("/v1/images", "images.list", "Images", list)
                .needs(Right::ImageView, On::Any)
                .kept(),
            get("/v1/images/{image}", "images.show", "An image", show)
                .needs(Right::ImageView, image)
                .fails(refused),
            patch("/v1/images/{image}", "images.tag", "Add and remove labels", tag)
                .needs(Right::ImageCreate, image)
                .fails(refused),
            put(
                "/v1/images/{image}/immutable",
                "images.keep",
                "Make it immutable until then",
                keep,
            )
            .needs(Right::ImageRetain, image)
            .fails(refused)
            .fails([Code::Immutable]),
            put("/v1/images/{image}/retention", "images.retain", "Say how long it is kept", retain)
                .needs(Right::ImageRetain, image)
                .approved_by_handler()
                .comes_to("images.forget")
                .fails(refused),
            delete("/v1/images/{image}", "images.forget", "Forget an image", forget)
                .needs(Right::ImageDelete, image)
                .fails(refused)
                .fails([Code::Immutable]),
            tree::browse_route(),
            tree::find_route(),
            tree::diff_route(),
            content::file_route(),
            content::archive_route(),
        ],
    )
}

async fn list(call: Call, list: Listing<Images>) -> Result<Items<Image>> {
    call.items(&list, |image: known::Image| image.into()).await
}

async fn show(call: Call, Path(path): Path<ImagePath>) -> Result<Tagged<ImageState>> {
    let details = call.app().storage().show_image(path.image).await?;
    let version = details.image.version;
    Ok(Tagged(details.into(), version))
}

/// Labels to be added and removed.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct TagImage {
    /// To be there afterwards.
    #[serde(default)]
    add: Vec<String>,
    /// Not to be there afterwards.
    #[serde(default)]
    remove: Vec<String>,
}

async fn tag(
    call: Call,
    Path(path): Path<ImagePath>,
    IfMatch(version): IfMatch,
    Body(body): Body<TagImage>,
) -> Result<Tagged<Image>> {
    let change = TagChange { add: body.add, remove: body.remove };
    let image = call.app().storage().retag_image(path.image, change, version).await?;
    let version = image.version;
    Ok(Tagged(image.into(), version))
}

/// Until when an image is immutable.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct KeepImage {
    /// By the pool's clock; never earlier than it is now.
    until: Timestamp,
}

async fn keep(
    call: Call,
    Path(path): Path<ImagePath>,
    IfMatch(version): IfMatch,
    Body(body): Body<KeepImage>,
) -> Result<Tagged<Image>> {
    let image = call.app().storage().keep_image_until(path.image, body.until, version).await?;
    let version = image.version;
    Ok(Tagged(image.into(), version))
}

/// How long an image is kept. Keeping it for less long needs the right `image.delete` too, and
/// approval where `images.retain` or `images.forget` does.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct RetainImage {
    /// When it is to be forgotten, by the pool's clock; null: when somebody asks for it. An
    /// immutable image stays for as long as it is immutable.
    #[serde(deserialize_with = "Option::deserialize")]
    #[schema(required = true)]
    expires_at: Option<Timestamp>,
}

async fn retain(
    call: Call,
    Path(path): Path<ImagePath>,
    IfMatch(version): IfMatch,
    Body(body): Body<RetainImage>,
) -> Result<Tagged<Image>> {
    let storage = call.app().storage();
    let retain = |how| storage.retain_image(path.image, body.expires_at, how, version);
    let image = match retain(Retaining::Longer).await {
        // In the end the image goes by that.
        Err(Error::Shortens) => {
            call.allow(Right::ImageDelete, call.object(), "image")?;
            let until = body.expires_at.map_or("for good".into(), |at| format!("until {at}"));
            call.approved(&format!("to be kept for less long, {until}")).await?;
            retain(Retaining::Either).await?
        }
        image => image?,
    };
    let version = image.version;
    Ok(Tagged(image.into(), version))
}

async fn forget(call: Call, Path(path): Path<ImagePath>) -> Result<Empty> {
    call.app().storage().forget_images(&[path.image]).await?;
    Ok(Empty)
}
