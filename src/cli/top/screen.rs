//! The terminal of `stead top`: draws the lines of `view`, and acts on keys.

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
    host::{
        interrupt,
        process::{Start, own_program},
    },
    report::stdio,
    session::invocation::Invocation,
};

use super::{
    collect::{Collector, Row, Usage},
    view::{Sort, State, Style, screen},
};

/// How long to wait for a key between redraws.
const KEY_WAIT: Duration = Duration::from_millis(200);

/// Holds the terminal in raw mode; restores it when dropped.
struct RawTerminal;

impl RawTerminal {
    fn take() -> std::io::Result<Self> {
        terminal::enable_raw_mode()?;
        let taken = RawTerminal;
        let mut begin = Vec::new();
        queue!(begin, EnterAlternateScreen, cursor::Hide)?;
        stdio::raw(&begin)?;
        Ok(taken)
    }
}

impl Drop for RawTerminal {
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

pub(super) fn run(
    invocation: &Invocation,
    collector: Collector,
    interval: Duration,
) -> Result<ExitCode, Failure> {
    let failed = |error: std::io::Error| Failure::io("use the terminal", &error);
    let samples = samples(collector, interval);
    // The terminal is restored before a signal ends the process.
    let _listening = interrupt::listen();
    let mut state = State::new("");
    let color = invocation.style.color;
    let mut taken = Some(RawTerminal::take().map_err(failed)?);
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
                taken = Some(RawTerminal::take().map_err(failed)?);
                state.trouble = said.err();
                stale = true;
            }
            Todo::Nothing | Todo::Draw => {}
        }
        loop {
            match samples.try_recv() {
                Ok(Ok(sample)) => {
                    state.take(sample);
                    stale = true;
                }
                Ok(Err(trouble)) => {
                    state.trouble = Some(trouble);
                    stale = true;
                }
                Err(mpsc::TryRecvError::Empty) => break,
                Err(mpsc::TryRecvError::Disconnected) => {
                    return Err(Failure::error(
                        "stead itself failed while it sampled machines",
                        crate::report::BUG,
                    ));
                }
            }
        }
    }
}

/// Samples in a thread of its own, so that a guest that does not answer does not delay keys.
fn samples(mut collector: Collector, interval: Duration) -> mpsc::Receiver<Result<Usage, String>> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        loop {
            let next = Instant::now() + interval;
            let sample = collector.sample().map_err(|failure| match failure {
                Failure::Error { message, .. } => message,
                other => format!("{other:?}"),
            });
            // The screen is gone.
            if sender.send(sample).is_err() {
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
            // Reversed even without colours: only this marks the selection.
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

/// Runs stead itself for a machine of any project, on the restored terminal.
#[expect(
    clippy::disallowed_methods,
    reason = "it uses the terminal until it ends"
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
        .start()
        .and_then(|mut child| child.wait())
        .map_err(|error| format!("cannot run stead {what}: {error}"))?;
    match status.code() {
        Some(0) => Ok(()),
        // A login's exit code is that of its last command.
        _ if what == "ssh" => Ok(()),
        _ => Err(format!("stead {what} {} failed", row.machine)),
    }
}
