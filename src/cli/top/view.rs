//! The screen's lines: a pure function of samples and keys.

use std::collections::{HashMap, VecDeque};

use uuid::Uuid;

use crate::report::{Table, bytes, clean::words, counted};

use super::collect::{Row, Usage};

/// Number of samples in a sparkline.
const HISTORY: usize = 16;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sort {
    Name,
    Cpu,
    Memory,
    Disk,
    Network,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Style {
    Plain,
    Heading,
    Selected,
    Faint,
}

/// A line of the screen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Line {
    pub text: String,
    pub style: Style,
}

pub(super) struct State {
    connect: String,
    rows: Vec<Row>,
    history: HashMap<Uuid, History>,
    pub sort: Sort,
    selected: Option<Uuid>,
    /// The machine to halt if the answer is yes.
    pub question: Option<Row>,
    /// The last error.
    pub trouble: Option<String>,
    /// Whether there was a sample yet.
    is_sampled: bool,
}

#[derive(Default)]
struct History {
    cpu: VecDeque<f64>,
    disk: VecDeque<f64>,
    network: VecDeque<f64>,
}

impl State {
    pub(super) fn new(connect: &str) -> Self {
        State {
            connect: connect.to_string(),
            rows: Vec::new(),
            history: HashMap::new(),
            sort: Sort::Name,
            selected: None,
            question: None,
            trouble: None,
            is_sampled: false,
        }
    }

    /// Adds a sample.
    pub(super) fn take(&mut self, sample: Usage) {
        self.trouble = None;
        self.is_sampled = true;
        self.connect = sample.connect;
        let seen: Vec<Uuid> = sample.machines.iter().map(|row| row.uuid).collect();
        self.history.retain(|uuid, _| seen.contains(uuid));
        for row in &sample.machines {
            let history = self.history.entry(row.uuid).or_default();
            for (values, value) in [
                (&mut history.cpu, row.rates.cpu_percent),
                (&mut history.disk, disk(row)),
                (&mut history.network, network(row)),
            ] {
                if let Some(value) = value {
                    values.push_back(value);
                }
                while values.len() > HISTORY {
                    values.pop_front();
                }
            }
        }
        self.rows = sample.machines;
        self.order();
        if !self.selected.is_some_and(|uuid| seen.contains(&uuid)) {
            self.selected = self.rows.first().map(|row| row.uuid);
        }
    }

    pub(super) fn connect(&self) -> &str {
        &self.connect
    }

    pub(super) fn sort_by(&mut self, sort: Sort) {
        self.sort = sort;
        self.order();
    }

    fn order(&mut self) {
        let sort = self.sort;
        self.rows.sort_by(|a, b| {
            let names = (&a.project, &a.machine, a.uuid).cmp(&(&b.project, &b.machine, b.uuid));
            let of = |row: &Row| match sort {
                Sort::Name => None,
                Sort::Cpu => row.rates.cpu_percent,
                Sort::Memory => Some(row.rates.resident_bytes as f64),
                Sort::Disk => disk(row),
                Sort::Network => network(row),
            };
            // Descending; unknown values last.
            let by = |row: &Row| of(row).unwrap_or(-1.0);
            by(b).total_cmp(&by(a)).then(names)
        });
    }

    /// Moves the selection by some lines.
    pub(super) fn select(&mut self, by: isize) {
        let now = self
            .rows
            .iter()
            .position(|row| Some(row.uuid) == self.selected)
            .unwrap_or(0);
        let last = self.rows.len().saturating_sub(1);
        let next = now.saturating_add_signed(by).min(last);
        self.selected = self.rows.get(next).map(|row| row.uuid);
    }

    pub(super) fn selected(&self) -> Option<&Row> {
        self.rows.iter().find(|row| Some(row.uuid) == self.selected)
    }
}

fn disk(row: &Row) -> Option<f64> {
    Some(row.rates.disk_read_bytes? + row.rates.disk_written_bytes?)
}

fn network(row: &Row) -> Option<f64> {
    Some(row.rates.network_received_bytes? + row.rates.network_sent_bytes?)
}

/// Returns the whole screen, of `width` columns and `height` lines.
pub(super) fn screen(state: &State, width: usize, height: usize) -> Vec<Line> {
    let line = |text: String, style| Line {
        text: fit(&text, width),
        style,
    };
    let columns = columns_within(width);
    let mut lines = vec![
        line(heading(state), Style::Plain),
        line(String::new(), Style::Plain),
        line(row_of(names(state.sort), &columns), Style::Heading),
    ];
    let room = height.saturating_sub(lines.len() + 2);
    let selected = state
        .rows
        .iter()
        .position(|row| Some(row.uuid) == state.selected)
        .unwrap_or(0);
    // Scroll so that the selected line is visible.
    let first = (selected + 1).saturating_sub(room);
    for row in state.rows.iter().skip(first).take(room) {
        let style = if Some(row.uuid) == state.selected {
            Style::Selected
        } else {
            Style::Plain
        };
        lines.push(line(
            row_of(cells(row, state.history.get(&row.uuid)), &columns),
            style,
        ));
    }
    if state.rows.is_empty() && room > 0 && state.is_sampled {
        lines.push(line("no machine runs".into(), Style::Faint));
    }
    lines.resize(
        height.saturating_sub(2).max(lines.len()),
        line(String::new(), Style::Plain),
    );
    lines.push(line(String::new(), Style::Plain));
    lines.push(match (&state.question, &state.trouble) {
        (Some(row), _) => line(
            format!("halt {} of project {}? y/n", row.machine, row.project),
            Style::Heading,
        ),
        (None, Some(trouble)) => line(trouble.clone(), Style::Heading),
        (None, None) => line(
            "q quit  ↑↓ select  s ssh  h halt   sort: n name  c CPU  m memory  d disk  t network"
                .into(),
            Style::Faint,
        ),
    });
    lines.truncate(height);
    lines
}

/// Returns one sample as a table, without history.
pub(super) fn plain(state: &State) -> String {
    let mut table = Table::new(&[
        "MACHINE",
        "CPU",
        "MEMORY",
        "DISK READ",
        "WRITE",
        "NET IN",
        "OUT",
    ]);
    for row in &state.rows {
        let [name, cpu, _, memory, read, written, _, received, sent, _] = cells(row, None);
        table.row([name, cpu, memory, read, written, received, sent]);
    }
    format!("{}\n\n{}", heading(state), table.render())
}

fn heading(state: &State) -> String {
    if !state.is_sampled {
        return "stead top  sampling …".into();
    }
    let cpu: f64 = state
        .rows
        .iter()
        .filter_map(|row| row.rates.cpu_percent)
        // Not sum(), which is -0 for none.
        .fold(0.0, |sum, cpu| sum + cpu);
    let memory: u64 = state.rows.iter().map(|row| row.rates.resident_bytes).sum();
    format!(
        "stead top  {}  {} running  CPU {cpu:.0}%  memory {}",
        state.connect,
        counted(state.rows.len(), "machine"),
        bytes(memory),
    )
}

fn names(sort: Sort) -> [String; 10] {
    let mark = |what: &str, by| {
        if sort == by {
            format!("{what}▼")
        } else {
            what.to_string()
        }
    };
    [
        mark("MACHINE", Sort::Name),
        mark("CPU", Sort::Cpu),
        String::new(),
        mark("MEMORY", Sort::Memory),
        mark("DISK READ", Sort::Disk),
        "WRITE".into(),
        String::new(),
        mark("NET IN", Sort::Network),
        "OUT".into(),
        String::new(),
    ]
}

fn cells(row: &Row, history: Option<&History>) -> [String; 10] {
    let rates = &row.rates;
    let rate = |value: Option<f64>| {
        // One sample's count is far below where a float stops being exact.
        value.map_or_else(
            || "-".to_string(),
            |rate| format!("{}/s", bytes(rate as u64)),
        )
    };
    let line = |values: Option<&VecDeque<f64>>, top| {
        values.map_or_else(String::new, |values| sparkline(values, top))
    };
    let cpus = f64::from(row.cpus) * 100.0;
    [
        match row.state {
            "ready" => format!("{}/{}", row.project, row.machine),
            state => format!("{}/{} ({state})", row.project, row.machine),
        },
        rates
            .cpu_percent
            .map_or_else(|| "-".into(), |cpu| format!("{cpu:.0}%")),
        line(history.map(|history| &history.cpu), Some(cpus)),
        format!(
            "{} (guest {})",
            bytes(rates.resident_bytes),
            bytes(rates.memory_bytes)
        ),
        rate(rates.disk_read_bytes),
        rate(rates.disk_written_bytes),
        line(history.map(|history| &history.disk), None),
        rate(rates.network_received_bytes),
        rate(rates.network_sent_bytes),
        line(history.map(|history| &history.network), None),
    ]
}

/// The widths of the columns where all of them fit.
const WIDTHS: [usize; 10] = [26, 6, 16, 25, 10, 10, 16, 10, 10, 16];
const NAME: usize = 0;
const MEMORY: usize = 3;
/// The width of a name where there is little room.
const SHORT_NAME: usize = 16;
/// The width of the host's memory alone.
const SHORT_MEMORY: usize = 10;

/// Returns the columns for a screen, each with its width. On a narrow one, the histories go first, then the guest's
/// memory, then traffic.
fn columns_within(width: usize) -> Vec<(usize, usize)> {
    let mut columns: Vec<(usize, usize)> = WIDTHS.into_iter().enumerate().collect();
    let fits = |columns: &[(usize, usize)]| {
        let all: usize = columns.iter().map(|(_, width)| width + 1).sum();
        // The space after the last column may be cut.
        all <= width + 1
    };
    let set = |columns: &mut Vec<(usize, usize)>, column, width| {
        if let Some((_, now)) = columns.iter_mut().find(|(it, _)| *it == column) {
            *now = width;
        }
    };
    for gone in [9, 6, 2] {
        if !fits(&columns) {
            columns.retain(|(column, _)| *column != gone);
        }
    }
    if !fits(&columns) {
        set(&mut columns, NAME, SHORT_NAME);
    }
    if !fits(&columns) {
        set(&mut columns, MEMORY, SHORT_MEMORY);
    }
    for gone in [[7, 8], [4, 5]] {
        if !fits(&columns) {
            columns.retain(|(column, _)| !gone.contains(column));
        }
    }
    // What is left is for names.
    let all: usize = columns.iter().map(|(_, width)| width + 1).sum();
    let name = (SHORT_NAME + (width + 1).saturating_sub(all)).min(WIDTHS[NAME]);
    if columns.first() == Some(&(NAME, SHORT_NAME)) {
        set(&mut columns, NAME, name);
    }
    columns
}

/// Pads cells to the widths of their columns: names left-aligned, numbers right-aligned.
fn row_of(cells: [String; 10], columns: &[(usize, usize)]) -> String {
    let mut text = String::new();
    for (n, width) in columns.iter().copied() {
        let cell = match (n, cells[n].split_once(" (guest")) {
            (MEMORY, Some((host, _))) if width < WIDTHS[MEMORY] => host,
            _ => &cells[n],
        };
        let cell = fit(cell, width);
        let cell = cell.trim_end();
        if matches!(n, 0 | 2 | 6 | 9) {
            text.push_str(&format!("{cell:<width$} "));
        } else {
            text.push_str(&format!("{cell:>width$} "));
        }
    }
    text
}

/// Pads or cuts text to exactly `width` characters.
fn fit(text: &str, width: usize) -> String {
    let text = words(text);
    let count = text.chars().count();
    if count <= width {
        return format!("{text:<width$}");
    }
    let mut cut: String = text.chars().take(width.saturating_sub(1)).collect();
    if width > 0 {
        cut.push('…');
    }
    cut
}

/// Draws the newest value rightmost. A full bar is `top`, or else the greatest value.
fn sparkline(values: &VecDeque<f64>, top: Option<f64>) -> String {
    const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    let greatest = values.iter().copied().fold(0.0, f64::max);
    let top = top.unwrap_or(greatest);
    let bars: String = values
        .iter()
        .map(|value| {
            let part = if top > 0.0 { value / top } else { 0.0 };
            // Between 0 and 7 for any value.
            BARS[((part.clamp(0.0, 1.0) * 7.0).round() as usize).min(7)]
        })
        .collect();
    format!("{bars:>HISTORY$}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resources::Rates;

    fn row(number: u8, machine: &str, cpu: Option<f64>) -> Row {
        Row {
            project: "shop".into(),
            machine: machine.into(),
            root: "/srv/shop".into(),
            uuid: Uuid::from_bytes([number; 16]),
            state: if cpu.is_some() { "ready" } else { "booting" },
            cpus: 2,
            rates: Rates {
                cpu_percent: cpu,
                resident_bytes: u64::from(number) * (400 << 20),
                memory_bytes: 1 << 30,
                disk_read_bytes: cpu.map(|cpu| cpu * 5000.0),
                disk_written_bytes: cpu.map(|cpu| cpu * 12345.0),
                disk_requests: cpu,
                network_received_bytes: (number == 2).then_some(2048.0),
                network_sent_bytes: (number == 2).then_some(99.0),
            },
        }
    }

    fn sample(cpu: f64) -> Usage {
        Usage {
            at: jiff::Timestamp::UNIX_EPOCH,
            connect: "qemu:///system".into(),
            machines: vec![
                row(1, "a-machine-with-quite-a-long-name", None),
                row(2, "db", Some(cpu)),
                row(3, "web", Some(cpu / 3.0)),
            ],
        }
    }

    fn drawn(state: &State, width: usize, height: usize) -> String {
        screen(state, width, height)
            .iter()
            .map(|line| {
                let mark = match line.style {
                    Style::Plain => ' ',
                    Style::Heading => '#',
                    Style::Selected => '>',
                    Style::Faint => '.',
                };
                format!("{mark}{}", line.text.trim_end()) + "\n"
            })
            .collect()
    }

    #[test]
    fn a_screen() {
        let mut state = State::new("qemu:///system");
        for n in 0..20 {
            state.take(sample(f64::from(n) * 10.0));
        }
        state.sort_by(Sort::Cpu);
        state.select(1);
        insta::assert_snapshot!(drawn(&state, 160, 9));
    }

    #[test]
    fn a_small_screen_keeps_what_is_selected_in_sight() {
        let mut state = State::new("qemu:///system");
        state.take(sample(50.0));
        state.select(2);
        state.question = state.selected().cloned();
        let text = drawn(&state, 40, 6);
        assert!(text.contains("\n>shop/web"), "{text}");
        assert!(text.contains("\n#halt web of project shop? y/n"), "{text}");
        assert_eq!(text.lines().count(), 6);
        for (width, height) in [(0, 0), (1, 1), (3, 2), (10, 4)] {
            assert!(screen(&state, width, height).len() <= height);
        }
    }

    #[test]
    fn a_narrow_screen_leaves_columns_out_and_cuts_none() {
        let mut state = State::new("qemu:///system");
        state.take(sample(50.0));
        let all = [110, 80, 50].map(|width| {
            let lines = screen(&state, width, 7);
            assert!(lines.iter().all(|line| line.text.chars().count() == width));
            drawn(&state, width, 7)
        });
        insta::assert_snapshot!(all.join("\n"));
    }

    #[test]
    fn one_look_reads_well_in_a_file() {
        let mut state = State::new("qemu:///session");
        assert!(plain(&state).starts_with("stead top  sampling …\n"));
        let mut none = sample(0.0);
        none.machines.clear();
        state.take(none);
        assert!(plain(&state).contains("0 machines running  CPU 0%"));
        state.take(sample(120.0));
        insta::assert_snapshot!(plain(&state));
    }

    #[test]
    fn the_selection_stays_on_its_machine() {
        let mut state = State::new("x");
        state.take(sample(50.0));
        state.select(1);
        assert_eq!(state.selected().unwrap().machine, "db");
        state.sort_by(Sort::Memory);
        assert_eq!(state.selected().unwrap().machine, "db");
        let mut less = sample(50.0);
        less.machines.remove(1);
        state.take(less);
        assert_eq!(state.selected().unwrap().machine, "web");
    }
}
