//! `kernels`: what it costs to boot another kernel than the box's own, and to take one in.

use crate::{
    Result,
    figure::Figure,
    project::{Ground, Project},
};

const GROUP: &str = "kernels";

/// The package that the box's own kernel is of, so that both boot the same kernel.
const PACKAGE: &str = "linux-image-cloud-amd64";

pub(crate) fn measure(runs: usize) -> Result<Vec<Figure>> {
    let ground = Ground::new()?;
    let own = ground.project("own", "machine \"web\" {\n}")?;
    let package = ground.project(
        "package",
        &format!("machine \"web\" {{\n    kernel {{ package \"{PACKAGE}\" }}\n}}"),
    )?;
    // Starts the user's libvirtd, fetches the package and takes its kernel in.
    eprintln!("figures: the kernel of {PACKAGE} comes in");
    package.seconds(["up"])?;
    package.destroy()?;
    let mut boots = Vec::new();
    for run in 1..=runs {
        eprintln!("figures: boots, run {run} of {runs}");
        // In turn first, so that neither has the quieter half of each run.
        let (a, b) = if run % 2 == 0 {
            let a = up(&package)?;
            (a, up(&own)?)
        } else {
            let b = up(&own)?;
            (up(&package)?, b)
        };
        eprintln!("figures: package {a:.1} s, the box's own {b:.1} s");
        boots.push((a, b));
    }
    Ok(vec![Figure::ratio(
        GROUP,
        "up on a package's kernel over the box's",
        &boots,
        1.05,
    )?])
}

fn up(project: &Project) -> Result<f64> {
    let seconds = project.seconds(["up"])?;
    project.destroy()?;
    Ok(seconds)
}
