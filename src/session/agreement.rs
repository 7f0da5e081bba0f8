//! Asks for your agreement before a command does something to this computer for a project.

use crate::{
    failure::Failure,
    host::paths::DataDir,
    machinefile::{Moment, Project},
    plan::Plan,
    report::{self, clean::words, counted, say, talk, warn},
    session::invocation::Invocation,
    trust::{self, Agreement, Answer, Answers, Demand, Kind, Store},
};

/// The demands that a command needs agreement to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// All demands of the project, except hooks, host playbooks, and what is of its networks (ports of machines and of
    /// the host, bridges), that the command skips.
    Up {
        hooks: bool,
        provisioners: bool,
        networks: bool,
    },
    /// Demands of provisioners.
    Provision,
    /// Folders outside of the project.
    Sync,
    /// Hooks at these moments only.
    Hooks(&'static [Moment]),
    /// Demands of boxes.
    Boxes,
}

impl Scope {
    fn needs(self, demand: &Demand) -> bool {
        let hook = matches!(demand.kind, Kind::Hook(_));
        match self {
            Scope::Up {
                hooks,
                provisioners,
                networks,
            } => {
                (hooks || !hook)
                    && (provisioners || demand.kind != Kind::Playbook)
                    && (networks || !is_of_networks(demand.kind))
            }
            Scope::Provision => {
                !hook
                    && !matches!(demand.kind, Kind::Folder | Kind::Image)
                    && !is_of_networks(demand.kind)
            }
            Scope::Sync => matches!(demand.kind, Kind::Folder | Kind::Writes | Kind::Owner),
            Scope::Hooks(moments) => match demand.kind {
                Kind::Hook(moment) => moments.contains(&moment),
                _ => false,
            },
            Scope::Boxes => matches!(
                demand.kind,
                Kind::Catalogue | Kind::Variable | Kind::Image | Kind::Owner
            ),
        }
    }
}

fn is_of_networks(kind: Kind) -> bool {
    matches!(kind, Kind::Port | Kind::HostPort | Kind::Bridge)
}

/// Returns the agreement that a command needs, after asking for what is missing.
///
/// # Errors
/// The user does not agree, or cannot be asked.
pub fn need(
    invocation: &Invocation,
    data: &DataDir,
    project: &Project,
    scope: Scope,
) -> Result<Agreement, Failure> {
    let review = Review::of(invocation, data, project, scope)?;
    if review.open.is_empty() {
        return Ok(review.agreement());
    }
    talk(&list(
        project,
        &review.open.iter().collect::<Vec<_>>(),
        &review.answers,
        false,
    ));
    match ask(&review.open.iter().collect::<Vec<_>>(), false) {
        Reply::Yes { edits } => review.agree(data, project, edits),
        Reply::No => {
            say(invocation.style, "cancelled: nothing was changed");
            Err(Failure::Reported(1))
        }
        Reply::NoTerminal => Err(Failure::error(
            format!(
                "project {} does this to your computer, and you have not agreed to it",
                project.name
            ),
            format!(
                "review it and agree with `stead trust`; without a terminal, run `stead trust --yes`, or agree once with --trust={}",
                review.digest
            ),
        )),
    }
}

/// As [`need`], for commands that must work without agreement: skips hooks, and reports that.
///
/// # Errors
/// The recorded agreement cannot be read.
pub fn hooks_or_without(
    invocation: &Invocation,
    data: &DataDir,
    project: &Project,
    moments: &'static [Moment],
    plan: Plan,
) -> Result<(Agreement, Plan), Failure> {
    if !plan.has_host_hooks() {
        return Ok((Agreement::default(), plan));
    }
    let review = match Review::of(invocation, data, project, Scope::Hooks(moments)) {
        Ok(review) => review,
        // No error may keep machines from being halted or destroyed.
        Err(Failure::Error { message, .. }) => {
            report_skipped(&message);
            return Ok((Agreement::default(), plan.without_host_hooks()));
        }
        Err(other) => return Err(other),
    };
    if review.open.is_empty() {
        return Ok((review.agreement(), plan));
    }
    let open: Vec<&Demand> = review.open.iter().collect();
    talk(&list(project, &open, &review.answers, false));
    match ask(&open, false) {
        Reply::Yes { edits } => Ok((review.agree(data, project, edits)?, plan)),
        Reply::No | Reply::NoTerminal => {
            report_skipped("you have not agreed to them; `stead trust` shows them and asks");
            Ok((Agreement::default(), plan.without_host_hooks()))
        }
    }
}

pub fn report_skipped(why: &str) {
    warn(&format!(
        "skipping the project's hooks on this computer: {why}"
    ));
}

/// The demands of a command, and which of them lack agreement.
pub struct Review {
    needed: Vec<Demand>,
    open: Vec<Demand>,
    answers: Answers,
    digest: String,
}

impl Review {
    fn of(
        invocation: &Invocation,
        data: &DataDir,
        project: &Project,
        scope: Scope,
    ) -> Result<Self, Failure> {
        let all = trust::of_project(project)?;
        let digest = trust::digest(&all);
        let answers = Store::open(data).read(project)?;
        let mut needed = all;
        needed.retain(|demand| scope.needs(demand));
        // The owner of the files matters only if there are other demands.
        if needed.iter().all(|demand| demand.kind == Kind::Owner) {
            needed.clear();
        }
        let mut open: Vec<Demand> = needed
            .iter()
            .filter(|demand| matches!(answers.of(demand), Answer::New | Answer::Changed))
            .cloned()
            .collect();
        if let Some(agreed) = &invocation.trust
            && !open.is_empty()
        {
            if *agreed != digest {
                return Err(Failure::error(
                    format!(
                        "--trust has another hash than project {}, which is {digest} now",
                        project.name
                    ),
                    "review the changes with `stead trust --show`",
                ));
            }
            // The digest covers only some of the files.
            if let Some(demand) = open.iter().find(|demand| demand.incomplete) {
                return Err(Failure::error(
                    format!(
                        "--trust cannot agree to {}: it may run more files than stead checks",
                        demand.what
                    ),
                    "`stead trust --edits --yes` agrees to it, with all edits of its files; or have it run fewer files",
                ));
            }
            open.clear();
        }
        Ok(Review {
            needed,
            open,
            answers,
            digest,
        })
    }

    fn agreement(&self) -> Agreement {
        let mut agreement = Agreement::default();
        for demand in &self.needed {
            agreement.add(demand, self.answers.of(demand) == Answer::Edits);
        }
        agreement
    }

    /// Records agreement to all of it.
    fn agree(self, data: &DataDir, project: &Project, edits: bool) -> Result<Agreement, Failure> {
        let open: Vec<&Demand> = self.open.iter().collect();
        let store = Store::open(data);
        store.remember(project, &open, edits)?;
        let answers = store.read(project)?;
        Ok(Review { answers, ..self }.agreement())
    }
}

/// The reply to the question whether the user agrees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reply {
    /// With `edits`, the user also agrees to all later edits of the files.
    Yes {
        edits: bool,
    },
    No,
    /// There is no terminal to ask on.
    NoTerminal,
}

/// Asks for agreement. With `edits`, the question is about all later edits too.
pub fn ask(open: &[&Demand], edits: bool) -> Reply {
    let may_edit = (open.iter()).any(|demand| !demand.files.is_empty() && !demand.others_can_edit);
    let question = if edits {
        "Do you agree to this, and to all later edits of these files? [y/N] "
    } else if may_edit {
        "Do you agree? [y]es, to this; [e]dits: also to later edits of these files; [N]o: "
    } else {
        "Do you agree? [y/N] "
    };
    let Some(answer) = report::question(question) else {
        return Reply::NoTerminal;
    };
    match answer.to_ascii_lowercase().as_str() {
        "y" | "yes" => Reply::Yes { edits },
        "e" | "edits" if may_edit => Reply::Yes { edits: true },
        _ => Reply::No,
    }
}

/// The most lines of a demand, characters of a line, and names that the question shows.
pub const LINES: usize = 12;

pub const LONGEST: usize = 500;

pub const NAMES: usize = 6;

/// Lists demands in plain words, by kind: in full with `all`, or shortened for a question.
pub fn list(project: &Project, demands: &[&Demand], answers: &Answers, all: bool) -> String {
    let root = trust::shown(&project.root.to_string_lossy());
    let mut text = format!("project {} ({root})\n", words(&project.name));
    let mut heading = "";
    let mut names_left = false;
    let mut some = |names: &[String], most: usize| {
        let most = if all { names.len() } else { most };
        let shown = names[..names.len().min(most)].join(", ");
        match names.len().saturating_sub(most) {
            0 => shown,
            more => {
                names_left = true;
                format!("{shown} and {more} more")
            }
        }
    };
    let mut shortened = false;
    for demand in demands {
        if demand.kind.heading() != heading {
            heading = demand.kind.heading();
            text.push_str(&format!("\n  {heading}\n"));
        }
        let what = if all { &demand.whole } else { &demand.what };
        shortened |= *what != demand.whole;
        let at = match some(&demand.at, 1) {
            at if at.is_empty() => at,
            at => format!("   {at}"),
        };
        let changed = match answers.of(demand) {
            Answer::Changed => match answers.changed(demand).as_slice() {
                [] => "   (changed since you agreed)".to_string(),
                files => format!("   (changed since you agreed: {})", some(files, NAMES)),
            },
            _ => String::new(),
        };
        text.push_str(&format!("    {what}{at}{changed}\n"));
        let lines = if all { demand.lines.len() } else { LINES };
        let longest = if all { usize::MAX } else { LONGEST };
        for line in demand.lines.iter().take(lines) {
            let more = line.chars().count().saturating_sub(longest);
            let line: String = line.chars().take(longest).collect();
            text.push_str(&format!("      │ {line}"));
            if more > 0 {
                shortened = true;
                text.push_str(&format!("… ({})", counted(more, "more character")));
            }
            text.push('\n');
        }
        if demand.lines.len() > lines {
            shortened = true;
            let more = demand.lines.len() - lines;
            text.push_str(&format!("      … ({})\n", counted(more, "more line")));
        }
        let names: Vec<String> = (demand.files.keys())
            .map(|name| trust::shown(name))
            .collect();
        if !names.is_empty() && (all || matches!(demand.kind, Kind::Hook(_))) {
            text.push_str(&format!("      with {}\n", some(&names, NAMES)));
        } else if names.len() > 2 {
            shortened = true;
        }
        if let Some(note) = &demand.note {
            text.push_str(&format!("      {note}\n"));
        }
    }
    if names_left || shortened {
        text.push_str("\n  `stead trust --show` shows all of it\n");
    }
    text.push('\n');
    text
}
