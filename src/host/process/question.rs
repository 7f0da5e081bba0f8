//! What a program asks while it runs, and who answers.

use std::pin::Pin;

/// A question of a program. All of it is as the program printed it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Asked {
    /// The line that the program began for it on its terminal, or else on stderr or stdout; often empty.
    pub words: String,
    /// Whether what is typed is not shown.
    pub is_hidden: bool,
    /// Whether the program reads keys, and not a line.
    pub by_keys: bool,
    /// What it takes as an answer if there is none, where that is known.
    pub default: Option<String>,
    /// The last lines on stdout before it, the oldest first.
    pub before: Vec<String>,
}

/// What a program is answered.
#[derive(Debug)]
pub enum Reply {
    /// A line, without its end.
    Answer(String),
    /// It is not a question: the program goes on by itself.
    NoQuestion,
    /// Nobody answers this.
    Nobody(Box<Asked>),
}

/// Answers what programs ask.
pub trait Answers: Send + Sync {
    fn answer<'a>(&'a self, asked: &'a Asked) -> Pin<Box<dyn Future<Output = Reply> + Send + 'a>>;
}
