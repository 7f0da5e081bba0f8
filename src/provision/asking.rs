//! Has the user answer what programs of the host ask while they set a machine up.

use std::pin::Pin;

use tokio::sync::Mutex;

use crate::{
    host::{
        process::{Answers, Asked, Reply},
        typed_line::typed_line,
    },
    report::{Event, EventKind, Question, Reporter},
};

/// One asks at a time: there is one terminal.
static ONE: Mutex<()> = Mutex::const_new(());

/// What a program runs for.
#[derive(Clone, Copy, Debug)]
pub enum Who<'a> {
    Machine(&'a str),
    /// A provisioner over several machines.
    Provisioner(&'a str),
}

/// Answers for one program.
pub struct Asking<'a> {
    pub reporter: &'a Reporter,
    pub who: Who<'a>,
    /// What runs, such as `provisioner app (ansible/web.yml)`.
    pub by: String,
}

impl Answers for Asking<'_> {
    fn answer<'a>(&'a self, asked: &'a Asked) -> Pin<Box<dyn Future<Output = Reply> + Send + 'a>> {
        Box::pin(async move {
            let nobody = || Reply::Nobody(Box::new(asked.clone()));
            tracing::info!("{} asks: {}", self.by, asked.words);
            if !self.reporter.may_ask() {
                let Some(default) = &asked.default else {
                    return nobody();
                };
                self.notice(format!(
                    "{} asks {:?}: nobody is here to answer, so it gets its default, {default:?}",
                    self.by,
                    asked.words.trim()
                ));
                return Reply::Answer(default.clone());
            }
            let _one = ONE.lock().await;
            let _held = Held::by(self.reporter);
            let question = Question {
                who: self.who.name(),
                by: &self.by,
                words: &asked.words,
                is_hidden: asked.is_hidden,
            };
            question.print();
            match typed_line(asked.is_hidden).await {
                Ok(Some(line)) => Reply::Answer(line),
                Ok(None) => nobody(),
                Err(error) => {
                    tracing::warn!("the answer cannot be read: {error}");
                    nobody()
                }
            }
        })
    }
}

impl Asking<'_> {
    fn notice(&self, message: String) {
        let kind = EventKind::Notice { message };
        self.reporter.event(&match self.who {
            Who::Machine(name) => Event::now(name, kind),
            Who::Provisioner(name) => Event::of_provisioner(name, kind),
        });
    }
}

impl Who<'_> {
    fn name(&self) -> &str {
        match self {
            Who::Machine(name) | Who::Provisioner(name) => name,
        }
    }
}

/// Nothing else is printed while this lives.
struct Held<'a>(&'a Reporter);

impl<'a> Held<'a> {
    fn by(reporter: &'a Reporter) -> Self {
        reporter.hold();
        Held(reporter)
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.0.release();
    }
}

/// Why nobody answered, and what that means for the user: the end of an error's sentence.
pub(super) const NOBODY: &str =
    "but nobody answers: there is no terminal here, or it was ended there with Ctrl-D";
