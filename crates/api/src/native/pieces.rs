//! What is too large for one request, and is sent piece by piece.

use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

/// Which piece.
#[derive(Debug, Deserialize, IntoParams)]
pub(super) struct PieceQuery {
    /// How much was sent before; 0 begins anew.
    #[param(minimum = 0)]
    pub(super) offset: u64,
}

/// What was sent so far.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct SentSoFar {
    /// Its bytes.
    pub(super) bytes: u64,
}
