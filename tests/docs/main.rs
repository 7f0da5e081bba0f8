//! The documentation against the program: every link leads somewhere, every Machinefile validates, every command
//! is one that stead has.

mod commands;
mod examples;
mod links;
mod man;
mod pages;
mod program;
