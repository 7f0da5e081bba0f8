//! A figure: samples, their median and spread, and the goal they are held to.

use std::{fmt, path::Path};

use serde_json::{Value, json};

use crate::{Result, Trouble, While};

/// What the numbers of a figure are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unit {
    /// stead's time over the other's, measured right after one another.
    Ratio,
    Milliseconds,
    Mebibytes,
    Percent,
}

impl Unit {
    const ALL: [(Unit, &'static str); 4] = [
        (Unit::Ratio, "×"),
        (Unit::Milliseconds, "ms"),
        (Unit::Mebibytes, "MiB"),
        (Unit::Percent, "%"),
    ];

    fn sign(self) -> &'static str {
        match self {
            Unit::Ratio => "×",
            Unit::Milliseconds => "ms",
            Unit::Mebibytes => "MiB",
            Unit::Percent => "%",
        }
    }
}

/// Smaller is better in all of them.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Figure {
    pub group: String,
    pub name: String,
    pub unit: Unit,
    /// In the figure's unit; at least one.
    samples: Vec<f64>,
    /// What the median may be at most. None where the figure is only shown, to choose by.
    pub goal: Option<f64>,
    /// The times behind a ratio, such as `24.1 s against 22.0 s`.
    pub detail: String,
}

impl Figure {
    /// `samples` that are already in `unit`.
    pub(crate) fn of(
        group: &str,
        name: &str,
        unit: Unit,
        samples: Vec<f64>,
        goal: f64,
    ) -> Result<Figure> {
        let mut figure = Figure::shown(group, name, unit, samples)?;
        figure.goal = Some(goal);
        Ok(figure)
    }

    /// One without a goal.
    pub(crate) fn shown(group: &str, name: &str, unit: Unit, samples: Vec<f64>) -> Result<Figure> {
        if samples.is_empty() || samples.iter().any(|s| !s.is_finite()) {
            return Err(Trouble(format!("{group}: {name}: no usable samples")));
        }
        Ok(Figure {
            group: group.into(),
            name: name.into(),
            unit,
            samples,
            goal: None,
            detail: String::new(),
        })
    }

    /// Times of stead's and of the other's, in seconds, pair by pair.
    pub(crate) fn ratio(
        group: &str,
        name: &str,
        pairs: &[(f64, f64)],
        goal: f64,
    ) -> Result<Figure> {
        let mut figure = Figure::ratio_shown(group, name, pairs)?;
        figure.goal = Some(goal);
        Ok(figure)
    }

    /// One without a goal.
    pub(crate) fn ratio_shown(group: &str, name: &str, pairs: &[(f64, f64)]) -> Result<Figure> {
        let ratios = pairs.iter().map(|(ours, theirs)| ours / theirs).collect();
        let mut figure = Figure::shown(group, name, Unit::Ratio, ratios)?;
        let ours: Vec<f64> = pairs.iter().map(|p| p.0).collect();
        let theirs: Vec<f64> = pairs.iter().map(|p| p.1).collect();
        figure.detail = format!(
            "{} against {}",
            duration(median(&ours)),
            duration(median(&theirs))
        );
        Ok(figure)
    }

    pub(crate) fn median(&self) -> f64 {
        median(&self.samples)
    }
    fn least(&self) -> f64 {
        self.samples.iter().copied().fold(f64::INFINITY, f64::min)
    }
    fn most(&self) -> f64 {
        self.samples.iter().copied().fold(0.0, f64::max)
    }
    pub(crate) fn reached(&self) -> bool {
        self.goal.is_none_or(|goal| self.median() <= goal)
    }
    fn verdict(&self) -> &'static str {
        match self.goal {
            None => "",
            Some(_) if self.reached() => "ok",
            Some(_) => "short",
        }
    }

    pub(crate) fn heading() -> String {
        format!(
            "{:<54} {:>11}  {:<19} {:>9}  {:<5}  {}",
            "figure", "median", "min–max", "goal", "", "medians of the times"
        )
    }

    fn to_json(&self) -> Value {
        json!({
            "group": self.group,
            "name": self.name,
            "unit": self.unit.sign(),
            "median": self.median(),
            "min": self.least(),
            "max": self.most(),
            "goal": self.goal,
            "verdict": self.verdict(),
            "samples": self.samples,
            "detail": self.detail,
        })
    }

    fn from_json(value: &Value) -> Option<Figure> {
        let text = |key: &str| Some(value.get(key)?.as_str()?.to_owned());
        let sign = text("unit")?;
        let (unit, _) = *Unit::ALL.iter().find(|(_, name)| *name == sign)?;
        let samples: Vec<f64> = value
            .get("samples")?
            .as_array()?
            .iter()
            .map(Value::as_f64)
            .collect::<Option<_>>()?;
        let mut figure = Figure::shown(&text("group")?, &text("name")?, unit, samples).ok()?;
        figure.goal = value.get("goal")?.as_f64();
        figure.detail = text("detail")?;
        Some(figure)
    }
}

impl fmt::Display for Figure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = self.unit.sign();
        write!(
            f,
            "{:<54} {:>11}  {:<19} {:>9}  {:<5}  {}",
            format!("{}: {}", self.group, self.name),
            format!("{} {sign}", number(self.median())),
            format!("{}–{}", number(self.least()), number(self.most())),
            self.goal
                .map_or(String::new(), |goal| format!("≤ {}", number(goal))),
            self.verdict(),
            self.detail
        )
    }
}

/// Three significant digits or so.
fn number(value: f64) -> String {
    if value >= 100.0 {
        format!("{value:.0}")
    } else if value >= 10.0 {
        format!("{value:.1}")
    } else if value >= 0.1 {
        format!("{value:.2}")
    } else {
        format!("{value:.3}")
    }
}

fn duration(seconds: f64) -> String {
    if seconds < 1.0 {
        format!("{:.0} ms", seconds * 1000.0)
    } else {
        format!("{seconds:.1} s")
    }
}

pub(crate) fn median(samples: &[f64]) -> f64 {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    match sorted.len() {
        0 => f64::NAN,
        n if n % 2 == 1 => sorted[n / 2],
        n => (sorted[n / 2 - 1] + sorted[n / 2]) / 2.0,
    }
}

/// All figures as one JSON array.
pub(crate) fn write(path: &Path, figures: &[Figure]) -> Result<()> {
    let all: Vec<Value> = figures.iter().map(Figure::to_json).collect();
    let text = serde_json::to_string_pretty(&all).during("figures to JSON")?;
    std::fs::write(path, text + "\n").during(path.display())
}

/// What [`write`] wrote.
pub(crate) fn read(path: &Path) -> Result<Vec<Figure>> {
    let text = std::fs::read_to_string(path).during(path.display())?;
    let values: Vec<Value> = serde_json::from_str(&text).during(path.display())?;
    values
        .iter()
        .map(|value| {
            Figure::from_json(value)
                .ok_or_else(|| Trouble(format!("{}: not a figure: {value}", path.display())))
        })
        .collect()
}
