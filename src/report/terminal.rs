//! Events on a terminal that can redraw.

use std::{
    collections::{HashMap, VecDeque},
    io::{Write, stderr},
    sync::Mutex,
    time::Duration,
};

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};

use super::{
    Event, EventKind, Outcome, Report,
    clean::{self, words},
    fold::Fold,
    numbers::{counted, elapsed, so_far},
    plain::{lines, name_width},
    question::somebody_is_there,
};

/// Shows one live line per machine on stderr: phase, time, and the guest's last console line while it boots.
/// Lines that should stay are printed above.
pub(super) struct Live {
    bars: MultiProgress,
    machines: Mutex<HashMap<String, Line>>,
    width: usize,
    color: bool,
    verbose: bool,
    /// Lines that wait for the end of a question.
    held: Mutex<Option<Held>>,
}

/// The most lines that are held back. Of more, the oldest are only in the log.
const MOST_HELD: usize = 10_000;

#[derive(Default)]
struct Held {
    lines: VecDeque<String>,
    lost: usize,
}

impl Held {
    fn add(&mut self, line: String) {
        if self.lines.len() == MOST_HELD {
            self.lines.pop_front();
            self.lost += 1;
        }
        self.lines.push_back(line);
    }
}

struct Line {
    bar: ProgressBar,
    doing: String,
    /// Whether it is only waiting: its time counts from the start of its own work.
    idle: bool,
    /// The output of its step.
    fold: Fold,
}

/// Returns the style of a line with its time, which indicatif itself would round to minutes from a minute and a half on.
fn timed(template: &str) -> ProgressStyle {
    // The templates are fixed and valid; without them the default style still works.
    ProgressStyle::with_template(template)
        .unwrap_or_else(|_| ProgressStyle::default_spinner())
        .with_key(
            "time",
            |state: &ProgressState, text: &mut dyn std::fmt::Write| {
                let _ = text.write_str(&so_far(state.elapsed()));
            },
        )
        .tick_chars("⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏ ")
}

fn target() -> ProgressDrawTarget {
    ProgressDrawTarget::stderr_with_hz(10)
}

impl Live {
    pub(super) fn new(machines: &[String], color: bool, verbose: bool) -> Self {
        let bars = MultiProgress::with_draw_target(target());
        Live {
            width: name_width(machines),
            bars,
            machines: Mutex::new(HashMap::new()),
            color,
            verbose,
            held: Mutex::new(None),
        }
    }

    fn painted(&self, code: &str, text: &str) -> String {
        if self.color {
            format!("\u{1b}[{code}m{text}\u{1b}[0m")
        } else {
            text.to_string()
        }
    }

    fn name(&self, machine: &str) -> String {
        let width = self.width;
        self.painted("1", &format!("{:<width$}", words(machine)))
    }

    fn print(&self, machine: &str, line: &str) {
        let text = if machine.is_empty() {
            line.to_string()
        } else {
            format!("{}  {line}", self.name(machine))
        };
        // Coloured text was cleaned before; this cleans the rest.
        let text = clean::text(&text, self.color);
        if let Ok(mut held) = self.held.lock()
            && let Some(held) = held.as_mut()
        {
            held.add(text);
            return;
        }
        self.print_above(text);
    }

    /// Prints a clean line above the live lines.
    fn print_above(&self, text: String) {
        // So that no other task adds a machine's line meanwhile.
        let machines = self.machines.lock();
        // If stderr is closed, the work continues all the same.
        let _ = self.bars.println(text);
        // indicatif fills its last line with spaces to the terminal's edge and leaves the cursor there, so the
        // next newline would only end that line. A space moves the cursor to the next line.
        if machines.is_ok_and(|machines| machines.is_empty()) {
            let _ = stderr().write_all(b" \r");
        }
    }

    fn with_line(&self, machine: &str, change: impl FnOnce(&mut Line)) {
        let Ok(mut machines) = self.machines.lock() else {
            return;
        };
        let line = machines.entry(machine.to_string()).or_insert_with(|| {
            let bar = self.bars.add(ProgressBar::new_spinner());
            bar.set_style(timed("{spinner:.cyan} {prefix}  {time:>6}  {wide_msg}"));
            bar.set_prefix(self.name(machine));
            bar.enable_steady_tick(Duration::from_millis(120));
            Line {
                bar,
                doing: String::new(),
                idle: false,
                fold: Fold::default(),
            }
        });
        change(line);
    }

    /// Takes a line of a script's output. Returns whether it is shown above the live line, and not in it.
    fn shows(&self, machine: &str, line: &str) -> bool {
        let faint = self.painted("2", &words(line));
        let mut shows = true;
        self.with_line(machine, |live| {
            shows = live.fold.shows(line);
            if !shows {
                live.bar.set_message(format!("{}  {faint}", live.doing));
            }
        });
        shows
    }

    /// Shows the end of what a step's script printed.
    fn end_output(&self, machine: &str, failed: bool) {
        let mut lines = Vec::new();
        if let Ok(mut machines) = self.machines.lock()
            && let Some(line) = machines.get_mut(machine)
        {
            lines = line.fold.end(failed);
        }
        for line in lines {
            self.print(machine, &line);
        }
    }

    fn end(&self, machine: &str) {
        if let Ok(mut machines) = self.machines.lock()
            && let Some(line) = machines.remove(machine)
        {
            line.bar.finish_and_clear();
        }
    }
}

impl Report for Live {
    fn event(&self, event: &Event) {
        let machine = event.who();
        match &event.kind {
            EventKind::StepStarted { doing, .. } => self.with_line(machine, |line| {
                if std::mem::take(&mut line.idle) {
                    line.bar.reset_elapsed();
                }
                line.doing = words(doing);
                line.bar.set_message(line.doing.clone());
            }),
            EventKind::Console { line: console } => {
                let faint = self.painted("2", &words(console));
                self.with_line(machine, |line| {
                    line.bar.set_message(format!("{}  {faint}", line.doing));
                });
            }
            EventKind::Progress {
                percent, rate, eta, ..
            } => self.with_line(machine, |line| {
                let filled = usize::from(*percent) / 5;
                let bar = format!("{}{}", "█".repeat(filled), "░".repeat(20 - filled.min(20)));
                line.bar.set_message(format!(
                    "{}  {bar} {percent:>3}%  {}  {} left",
                    line.doing,
                    words(rate),
                    words(eta)
                ));
            }),
            EventKind::Queued { after } => self.with_line(machine, |line| {
                line.idle = true;
                line.bar
                    .set_message(words(&format!("waiting for {}", after.join(", "))));
            }),
            // Those before it change while it waits.
            EventKind::AwaitsTurn { .. } => self.with_line(machine, |line| {
                line.idle = true;
                line.bar.set_message("waiting for its turn");
            }),
            EventKind::Waiting { for_whom } => self.with_line(machine, |line| {
                line.idle = true;
                line.bar
                    .set_message(words(&format!("waiting: held by {for_whom}")));
            }),
            EventKind::StepDone { .. } if self.verbose => {
                self.end_output(machine, false);
                for line in lines(&event.kind, true, self.color) {
                    self.print(machine, &line);
                }
            }
            EventKind::StepDone { .. } => self.end_output(machine, false),
            EventKind::StepFailed { .. } => {
                self.end_output(machine, true);
                for (n, line) in lines(&event.kind, self.verbose, self.color)
                    .iter()
                    .enumerate()
                {
                    let line = if n == 0 {
                        line.replacen("error:", &self.painted("31;1", "error:"), 1)
                    } else {
                        line.clone()
                    };
                    self.print(machine, &line);
                }
            }
            EventKind::MachineDone {
                outcome,
                seconds,
                changed,
            } => {
                self.end_output(machine, *outcome != Outcome::Done);
                self.end(machine);
                match outcome {
                    Outcome::Done if *changed => self.print(
                        machine,
                        &format!(
                            "{} in {}",
                            self.painted("32", "done"),
                            elapsed(Duration::from_secs_f64(*seconds))
                        ),
                    ),
                    Outcome::Done | Outcome::Failed => {}
                    _ => {
                        for line in lines(&event.kind, self.verbose, self.color) {
                            self.print(machine, &line);
                        }
                    }
                }
            }
            EventKind::ProvisionerDone { outcome, seconds } => {
                self.end(machine);
                if *outcome == Outcome::Done {
                    let done = self.painted("32", "done");
                    let time = elapsed(Duration::from_secs_f64(*seconds));
                    self.print(machine, &format!("{done} in {time}"));
                } else {
                    for line in lines(&event.kind, self.verbose, self.color) {
                        self.print(machine, &line);
                    }
                }
            }
            EventKind::Output {
                line, folds: true, ..
            } if !self.verbose => {
                let shown = lines(&event.kind, false, self.color);
                let shown = shown.first().map_or(line.as_str(), String::as_str);
                if self.shows(machine, shown) {
                    self.print(machine, shown);
                }
            }
            EventKind::Output { .. }
            | EventKind::Notice { .. }
            | EventKind::Synced { .. }
            | EventKind::Watching { .. }
            | EventKind::Away { .. } => {
                for line in lines(&event.kind, self.verbose, self.color) {
                    self.print(machine, &line);
                }
            }
        }
    }

    fn color(&self) -> bool {
        self.color
    }

    fn may_ask(&self) -> bool {
        somebody_is_there()
    }

    fn hold(&self) {
        if let Ok(mut held) = self.held.lock() {
            *held = Some(Held::default());
        }
        let _ = self.bars.clear();
        self.bars.set_draw_target(ProgressDrawTarget::hidden());
    }

    fn release(&self) {
        self.bars.set_draw_target(target());
        let Some(held) = self.held.lock().ok().and_then(|mut held| held.take()) else {
            return;
        };
        if held.lost > 0 {
            let lost = counted(held.lost, "line");
            self.print_above(format!(
                "… {lost} printed meanwhile, only in the log of this run"
            ));
        }
        for line in held.lines {
            self.print_above(line);
        }
    }

    fn finish(&self) {
        if let Ok(mut machines) = self.machines.lock() {
            for (_, line) in machines.drain() {
                line.bar.finish_and_clear();
            }
        }
    }
}

/// A progress bar on stderr for one file that is copied.
pub struct CopyBar(ProgressBar);

impl CopyBar {
    pub fn new(live: bool) -> Self {
        if !live {
            return CopyBar(ProgressBar::hidden());
        }
        let bar = ProgressBar::new(0);
        // The template is fixed and valid; without it the default style still works.
        if let Ok(style) = ProgressStyle::with_template(
            "{bar:30} {percent:>3}%  {binary_bytes} of {binary_total_bytes}  {binary_bytes_per_sec}  {eta} left",
        ) {
            bar.set_style(style);
        }
        CopyBar(bar)
    }

    pub fn at(&self, done: u64, total: u64) {
        self.0.set_length(total);
        self.0.set_position(done);
    }

    pub fn end(&self) {
        self.0.finish_and_clear();
    }
}

/// A line on stderr about work that takes minutes: what it does, for how long, and the last line of its tool.
pub struct WorkLine {
    bar: ProgressBar,
    doing: String,
    color: bool,
}

impl WorkLine {
    pub fn new(live: bool, color: bool) -> Self {
        let bar = match live {
            true => ProgressBar::new_spinner(),
            false => ProgressBar::hidden(),
        };
        bar.set_style(timed("{spinner:.cyan} {time:>6}  {wide_msg}"));
        bar.enable_steady_tick(Duration::from_millis(120));
        WorkLine {
            bar,
            doing: String::new(),
            color,
        }
    }

    /// Begins another part of the work.
    pub fn begin(&mut self, doing: &str) {
        self.doing = words(doing);
        self.bar.reset_elapsed();
        self.bar.set_message(self.doing.clone());
    }

    /// Shows a line of the tool that does the work.
    pub fn tool_says(&self, line: &str) {
        let line = match self.color {
            true => format!("\u{1b}[2m{}\u{1b}[0m", words(line)),
            false => words(line),
        };
        self.bar.set_message(format!("{}  {line}", self.doing));
    }

    /// Removes the line while something else is printed.
    pub fn aside(&self, print: impl FnOnce()) {
        self.bar.suspend(print);
    }

    pub fn end(&self) {
        self.bar.finish_and_clear();
    }
}
