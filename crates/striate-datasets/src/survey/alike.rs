//! Pictures that look alike.

use image::DynamicImage;

/// What a picture is told by.
#[derive(Debug, Clone, Copy)]
pub(super) struct Print;

impl Print {
    pub(super) fn of(_: &DynamicImage) -> Option<Self> {
        None
    }
}

/// Groups of pictures that look alike; none if `go_on` says to stop.
pub(super) fn groups(_: Vec<(Print, usize)>, _: &mut dyn FnMut() -> bool) -> Option<Vec<Vec<usize>>> {
    Some(Vec::new())
}
