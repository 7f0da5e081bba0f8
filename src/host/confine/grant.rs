//! Open files that a confined program gets.

use std::fs::File;

/// What a program may do with a file that stead hands over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    Read,
    Write,
    /// Read everything in a folder.
    Tree,
    /// Read and write everything in a folder.
    Folder,
}

/// An open file that a program gets.
pub(super) struct Grant {
    pub file: File,
    pub access: Access,
}
