//! The terminal of `stead top`: draws what `view` says, and does what keys ask.

use std::{
    process::{Command, ExitCode},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use crossterm::{
    cursor, event,
    event::{Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers},
    queue, style,
    terminal::{self, EnterAlternateScreen, LeaveAlternateScreen},
};

use crate::{
    failure::Failure,
    host::{interrupt, process::own_program},
    report::stdio,
    session::invocation::Invocation,
};

use super::{
    collect::{Collector, Look, Row},
    view::{Sort, State, Style, screen},
};

/// How long a key can go unseen.
const KEY_WAIT: Duration = Duration::from_millis(200);

/// The terminal as it was is put back however this ends.
struct Taken;

impl Taken {
    fn take() -> std::io::Result<Self> {
        terminal::enable_raw_mode()?;
        let taken = Taken;
        let mut begin = Vec::new();
        queue!(begin, EnterAlternateScreen, cursor::Hide)?;
        stdio::raw(&begin)?;
        Ok(taken)
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        let mut end = Vec::new();
        let _ = queue!(end, LeaveAlternateScreen, cursor::Show).and_then(|()| stdio::raw(&end));
        let _ = terminal::disable_raw_mode();
    }
}

enum Todo {
    Nothing,
    Draw,
    Quit,
    Run(&'static str, Box<Row>),
}

pub fn run(
    invocation: &Invocation,
    collector: Collector,
    interval: Duration,
) -> Result<ExitCode, Failure> {
    let failed = |error: std::io::Error| Failure::io("use the terminal", &error);
    let looks = looks(collector, interval);
    // The terminal is put back before a signal ends this.
    let _listening = interrupt::listen();
    let mut state = State::new("");
    let color = invocation.style.color;
    let mut taken = Some(Taken::take().map_err(failed)?);
    let mut stale = true;
    loop {
        if interrupt::asked() {
            return Ok(ExitCode::from(130));
        }
        if stale {
            draw(&state, color).map_err(failed)?;
        }
        let mut todo = Todo::Nothing;
        if event::poll(KEY_WAIT).map_err(failed)? {
            todo = match event::read().map_err(failed)? {
                Event::Key(key) if key.kind != KeyEventKind::Release => press(&mut state, key),
                Event::Resize(..) => Todo::Draw,
                _ => Todo::Nothing,
            };
        }
        stale = matches!(todo, Todo::Draw);
        match todo {
            Todo::Quit => return Ok(ExitCode::SUCCESS),
            Todo::Run(what, row) => {
                taken.take();
                let said = command(invocation, &state, what, &row);
                taken = Some(Taken::take().map_err(failed)?);
                state.trouble = said.err();
                stale = true;
            }
            Todo::Nothing | Todo::Draw => {}
        }
        loop {
            match looks.try_recv() {
                Ok(Ok(look)) => {
                    state.take(look);
                    stale = true;
                }
                Ok(Err(trouble)) => {
                    state.trouble = Some(trouble);
                    stale = true;
                }
                Err(mpsc::TryRecvError::Empty) => break,
                Err(mpsc::TryRecvError::Disconnected) => {
                    return Err(Failure::error(
                        "stead itself failed while it looked at machines",
                        crate::report::BUG,
                    ));
                }
            }
        }
    }
}

/// Looks go on in a thread of their own, so that a guest which does not answer holds up no key.
fn looks(mut collector: Collector, interval: Duration) -> mpsc::Receiver<Result<Look, String>> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        loop {
            let next = Instant::now() + interval;
            let look = collector.look().map_err(|failure| match failure {
                Failure::Error { message, .. } => message,
                other => format!("{other:?}"),
            });
            // Nobody draws any more.
            if sender.send(look).is_err() {
                return;
            }
            thread::sleep(next.saturating_duration_since(Instant::now()));
        }
    });
    receiver
}

fn press(state: &mut State, key: KeyEvent) -> Todo {
    if let Some(row) = state.question.take() {
        return match key.code {
            KeyCode::Char('y' | 'Y') => Todo::Run("halt", Box::new(row)),
            _ => Todo::Draw,
        };
    }
    match key.code {
        KeyCode::Char('c') if key.modifiers.contains(KeyModifiers::CONTROL) => return Todo::Quit,
        KeyCode::Char('q') | KeyCode::Esc => return Todo::Quit,
        KeyCode::Char('n') => state.sort_by(Sort::Name),
        KeyCode::Char('c') => state.sort_by(Sort::Cpu),
        KeyCode::Char('m') => state.sort_by(Sort::Memory),
        KeyCode::Char('d') => state.sort_by(Sort::Disk),
        KeyCode::Char('t') => state.sort_by(Sort::Network),
        KeyCode::Up | KeyCode::Char('k') => state.select(-1),
        KeyCode::Down | KeyCode::Char('j') => state.select(1),
        KeyCode::Char('h') => state.question = state.selected().cloned(),
        KeyCode::Char('s') | KeyCode::Enter => {
            return match state.selected() {
                Some(row) => Todo::Run("ssh", Box::new(row.clone())),
                None => Todo::Nothing,
            };
        }
        _ => return Todo::Nothing,
    }
    Todo::Draw
}

fn draw(state: &State, color: bool) -> std::io::Result<()> {
    let (width, height) = terminal::size()?;
    let mut out = Vec::new();
    for (n, line) in (0u16..).zip(screen(state, width.into(), height.into())) {
        queue!(out, cursor::MoveTo(0, n))?;
        let attribute = match line.style {
            Style::Plain => None,
            Style::Heading => Some(style::Attribute::Bold),
            // Without colour too: it is how one sees what is selected.
            Style::Selected => Some(style::Attribute::Reverse),
            Style::Faint => color.then_some(style::Attribute::Dim),
        };
        if let Some(attribute) = attribute {
            queue!(out, style::SetAttribute(attribute))?;
        }
        queue!(
            out,
            style::Print(&line.text),
            style::SetAttribute(style::Attribute::Reset)
        )?;
    }
    stdio::raw(&out).map(drop)
}

/// Runs stead itself for a machine of whatever project, on the terminal as it was.
#[expect(
    clippy::disallowed_methods,
    reason = "it has the terminal until it ends"
)]
fn command(invocation: &Invocation, state: &State, what: &str, row: &Row) -> Result<(), String> {
    let program = own_program().map_err(|error| format!("cannot run stead: {error}"))?;
    let mut command = Command::new(program);
    command.args(["--connect", state.connect()]);
    if invocation.color == crate::report::ColorChoice::Never {
        command.args(["--color", "never"]);
    }
    let status = command
        .args([what, "--domain", &row.uuid.to_string()])
        .status()
        .map_err(|error| format!("cannot run stead {what}: {error}"))?;
    match status.code() {
        Some(0) => Ok(()),
        // A login ends with whatever its last command ended with.
        _ if what == "ssh" => Ok(()),
        _ => Err(format!("stead {what} {} failed", row.machine)),
    }
}
