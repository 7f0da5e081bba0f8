//! `stead box push`: pushes a box to a registry.

use std::{process::ExitCode, sync::Arc, time::Instant};

use crate::{
    boxes::{
        Source, Store,
        oci::{Version, push},
    },
    failure::Failure,
    fetch::Fetcher,
    host::{address, paths::DataDir, runtime::runtime},
    report::{Event, EventKind, Meter, Outcome, bytes, counted, elapsed, reporter, say},
    session::{invocation::Invocation, locate::start_folder},
};

use super::{super::output, describe::name};

pub(super) fn run(
    invocation: &Invocation,
    store: &Store,
    data: &DataDir,
    reference: &str,
    to: &str,
) -> Result<ExitCode, Failure> {
    let hint = "write oci://HOST/REPOSITORY:TAG";
    let place = match Source::parse(to, &start_folder(invocation)?) {
        Ok(Source::Oci(place)) => place,
        Ok(_) => {
            return Err(Failure::usage(
                format!("{:?} is not a place in a registry", address::shown(to)),
                hint,
            ));
        }
        Err(message) => return Err(Failure::usage(message, hint)),
    };
    let Version::Tag(tag) = &place.version else {
        return Err(Failure::usage(
            format!(
                "cannot push to {:?}: the registry chooses the digest",
                address::shown(to)
            ),
            hint,
        ));
    };
    let stored = store.resolve(reference)?;
    let started = Instant::now();
    let label = stored.manifest.name.clone();
    let reporter = reporter(invocation.style, &[]);
    reporter.event(&Event::now(
        &label,
        EventKind::StepStarted {
            step: "push".into(),
            doing: format!("pushing {} to {place}", name(&stored)),
        },
    ));
    let meter = Meter::new(&label, "push", Arc::clone(&reporter));
    let fetcher = Arc::new(Fetcher::new()?);
    let result = runtime()?.block_on(push(
        &fetcher,
        store,
        &data.oci(),
        &stored,
        &place,
        tag,
        Arc::new(move |done, total| meter.at(done, total)),
    ));
    reporter.event(&Event::now(
        &label,
        EventKind::MachineDone {
            outcome: match &result {
                Ok(_) => Outcome::Done,
                Err(_) => Outcome::Failed,
            },
            seconds: started.elapsed().as_secs_f64(),
            changed: true,
        },
    ));
    reporter.finish();
    let pushed = result?;
    if invocation.style.json {
        output::json(&serde_json::json!({
            "reference": place.to_string(),
            "sha256": pushed.sha256,
            "digest": stored.digest.to_string(),
            "chunks": pushed.chunks,
            "uploaded_chunks": pushed.uploaded_chunks,
            "uploaded_bytes": pushed.uploaded_bytes,
        }))?;
    } else {
        say(
            invocation.style,
            &format!(
                "pushed {} to {place} in {}: {} of {} ({}) new there\nit is oci://{}@sha256:{}",
                name(&stored),
                elapsed(started.elapsed()),
                pushed.uploaded_chunks,
                counted(pushed.chunks, "chunk"),
                bytes(pushed.uploaded_bytes),
                place.place(),
                pushed.sha256,
            ),
        );
    }
    Ok(ExitCode::SUCCESS)
}
