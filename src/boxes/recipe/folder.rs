//! The folder of a recipe.

use std::path::Path;

use crate::{boxes::error::BoxError, host::open, report::clean::Shown};

use super::{model::Recipe, parse::parse};

/// The file by which a folder is a recipe.
const RECIPE: &str = "recipe.kdl";

/// Largest recipe in bytes; the built-in ones have 1 KiB.
const LARGEST: u64 = 1 << 20;

impl Recipe {
    pub fn read(folder: &Path) -> Result<Self, BoxError> {
        let path = folder.join(RECIPE);
        // A symlink that leads out of the recipe could show any file of this computer in errors.
        let text = (folder.canonicalize())
            .and_then(|folder| open::text_within(&path, LARGEST, &folder))
            .map_err(BoxError::io("read", &path))?;
        parse(&text, folder).map_err(|message| BoxError::Recipe {
            recipe: path.shown(),
            message,
        })
    }

    pub fn is_recipe(folder: &Path) -> bool {
        folder.join(RECIPE).symlink_metadata().is_ok()
    }
}
