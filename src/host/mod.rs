//! The machine stead runs on, as plain facts: where stead's files are, and nothing else yet.

pub mod paths;
