//! `provision`: what provisioning costs beside what it does.

use crate::{
    Result,
    figure::{Figure, Unit},
    project::{Ground, Project},
};

const GROUP: &str = "provision";
/// Samples of the figures that run nothing in a guest.
const QUICK_RUNS: usize = 20;

/// Figures, from the group's ground and a number of runs.
type Measured = fn(&Ground, usize) -> Result<Vec<Figure>>;

const FIGURES: [Measured; 1] = [nothing_to_do];

pub(crate) fn measure(runs: usize) -> Result<Vec<Figure>> {
    let ground = Ground::new()?;
    let mut figures = Vec::new();
    for figure in FIGURES {
        figures.extend(figure(&ground, runs)?);
    }
    Ok(figures)
}

/// `stead provision` where everything has run: the whole process.
fn nothing_to_do(ground: &Ground, _runs: usize) -> Result<Vec<Figure>> {
    let project: Project<'_> = ground.project(
        "idle",
        "machine \"web\" {\n    provision \"one\" { shell inline=\"true\"; }\n    \
         provision \"two\" { file \"Machinefile\" to=\"/srv/Machinefile\"; }\n}",
    )?;
    eprintln!("figures: a machine to provision");
    project.seconds(["up"])?;
    project.seconds(["provision"])?;
    let times: Vec<f64> = (0..QUICK_RUNS)
        .map(|_| project.seconds(["provision"]).map(|s| s * 1000.0))
        .collect::<Result<_>>()?;
    Ok(vec![Figure::of(
        GROUP,
        "nothing to provision",
        Unit::Milliseconds,
        times,
        100.0,
    )?])
}
