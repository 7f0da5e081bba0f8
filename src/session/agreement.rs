//! Asks for agreement to what a project does to this computer, before a command does it.

use crate::{
    failure::Failure,
    host::paths::DataDir,
    machinefile::{Moment, Project},
    plan::Plan,
    report::{self, clean::words, say, talk, warn},
    session::invocation::Invocation,
    trust::{self, Agreement, Answer, Answers, Demand, Kind, Store},
};

/// Which demands a command needs to be agreed to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// All that the project demands, but for hooks and host playbooks where they are left out.
    Up { hooks: bool, provisioners: bool },
    /// What provisioners need.
    Provision,
    /// Folders outside of the project.
    Sync,
    /// Hooks at these moments, and nothing else.
    Hooks(&'static [Moment]),
    /// What is asked for boxes.
    Boxes,
}

impl Scope {
    fn needs(self, demand: &Demand) -> bool {
        let hook = matches!(demand.kind, Kind::Hook(_));
        match self {
            Scope::Up {
                hooks,
                provisioners,
            } => (hooks || !hook) && (provisioners || demand.kind != Kind::Playbook),
            Scope::Provision => !hook && !matches!(demand.kind, Kind::Folder | Kind::Image),
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

/// What was agreed to of what a command needs; asks for what is missing.
///
/// # Errors
/// Where it is not agreed to.
pub fn need(
    invocation: &Invocation,
    data: &DataDir,
    project: &Project,
    scope: Scope,
) -> Result<Agreement, Failure> {
    let looked = Looked::at(invocation, data, project, scope)?;
    if looked.open.is_empty() {
        return Ok(looked.agreement());
    }
    talk(&list(
        project,
        &looked.open.iter().collect::<Vec<_>>(),
        &looked.answers,
        false,
    ));
    match ask(&looked.open.iter().collect::<Vec<_>>(), false) {
        Some(Some(edits)) => looked.agree(data, project, edits),
        Some(None) => {
            say(invocation.style, "nothing was done");
            Err(Failure::Said(1))
        }
        None => Err(Failure::error(
            format!(
                "project {} does this to your computer, and you have not agreed to it",
                project.name
            ),
            format!(
                "look at it and agree with `stead trust`; where there is no terminal, with `stead trust --yes`, or once by --trust={}",
                looked.digest
            ),
        )),
    }
}

/// As [`need`], for commands that have to work without: says what is left out of the plan.
///
/// # Errors
/// Where what was agreed to cannot be read.
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
    let looked = match Looked::at(invocation, data, project, Scope::Hooks(moments)) {
        Ok(looked) => looked,
        // Whatever it is, machines can be halted and destroyed.
        Err(Failure::Error { message, .. }) => {
            left_out(&message);
            return Ok((Agreement::default(), plan.without_host_hooks()));
        }
        Err(other) => return Err(other),
    };
    if looked.open.is_empty() {
        return Ok((looked.agreement(), plan));
    }
    let open: Vec<&Demand> = looked.open.iter().collect();
    talk(&list(project, &open, &looked.answers, false));
    match ask(&open, false) {
        Some(Some(edits)) => Ok((looked.agree(data, project, edits)?, plan)),
        _ => {
            left_out("you have not agreed to them; `stead trust` shows them and asks");
            Ok((Agreement::default(), plan.without_host_hooks()))
        }
    }
}

pub fn left_out(why: &str) {
    warn(&format!(
        "the project's hooks on this computer are left out: {why}"
    ));
}

/// What a command needs, and what of it is not agreed to.
pub struct Looked {
    needed: Vec<Demand>,
    open: Vec<Demand>,
    answers: Answers,
    digest: String,
}

impl Looked {
    fn at(
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
        // Whose files they are matters only where they do something.
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
                        "--trust is of something else: project {} is {digest} now",
                        project.name
                    ),
                    "look at what changed with `stead trust --show`",
                ));
            }
            // A digest of some of the files says nothing of the others.
            if let Some(demand) = open.iter().find(|demand| demand.cut) {
                return Err(Failure::error(
                    format!(
                        "--trust cannot agree to {}: it may run more files than can be looked at",
                        demand.what
                    ),
                    "`stead trust --edits --yes` agrees to it, whatever these files become; or have it run fewer files",
                ));
            }
            open.clear();
        }
        Ok(Looked {
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

    /// Remembers that all of it is agreed to.
    fn agree(self, data: &DataDir, project: &Project, edits: bool) -> Result<Agreement, Failure> {
        let open: Vec<&Demand> = self.open.iter().collect();
        let store = Store::open(data);
        store.remember(project, &open, edits)?;
        let answers = store.read(project)?;
        Ok(Looked { answers, ..self }.agreement())
    }
}

/// Asks for a yes; inside of it, whether to edits too. `None`: there is nobody to ask.
pub fn ask(open: &[&Demand], edits: bool) -> Option<Option<bool>> {
    let may_edit = (open.iter()).any(|demand| !demand.files.is_empty() && !demand.exact);
    let question = if edits {
        "Do you agree to this, whatever these files become? [y/N] "
    } else if may_edit {
        "Do you agree? [y]es, to this; to [e]dits of these files too; [N]o: "
    } else {
        "Do you agree? [y/N] "
    };
    let answer = report::question(question)?;
    Some(match answer.to_ascii_lowercase().as_str() {
        "y" | "yes" => Some(edits),
        "e" | "edits" if may_edit => Some(true),
        _ => None,
    })
}

/// More lines, characters of one, and names are not in the question.
pub const LINES: usize = 12;

pub const LONGEST: usize = 500;

pub const NAMES: usize = 6;

/// Demands in plain words, by kind; `all` of their words, or those that fit into a question.
pub fn list(project: &Project, demands: &[&Demand], answers: &Answers, all: bool) -> String {
    let root = trust::shown(&project.root.to_string_lossy());
    let mut text = format!("project {} ({root})\n", words(&project.name));
    let mut heading = "";
    let mut cut = false;
    let mut some = |names: &[String], most: usize| {
        let most = if all { names.len() } else { most };
        let shown = names[..names.len().min(most)].join(", ");
        match names.len().saturating_sub(most) {
            0 => shown,
            more => {
                cut = true;
                format!("{shown} and {more} more")
            }
        }
    };
    let mut left_out = false;
    for demand in demands {
        if demand.kind.heading() != heading {
            heading = demand.kind.heading();
            text.push_str(&format!("\n  {heading}\n"));
        }
        let what = if all { &demand.whole } else { &demand.what };
        left_out |= *what != demand.whole;
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
                left_out = true;
                text.push_str(&format!("… ({more} more characters)"));
            }
            text.push('\n');
        }
        if demand.lines.len() > lines {
            left_out = true;
            let more = demand.lines.len() - lines;
            text.push_str(&format!("      … ({more} more lines)\n"));
        }
        let names: Vec<String> = (demand.files.keys())
            .map(|name| trust::shown(name))
            .collect();
        if !names.is_empty() && (all || matches!(demand.kind, Kind::Hook(_))) {
            text.push_str(&format!("      with {}\n", some(&names, NAMES)));
        } else if names.len() > 2 {
            left_out = true;
        }
        if let Some(note) = &demand.note {
            text.push_str(&format!("      {note}\n"));
        }
    }
    if cut || left_out {
        text.push_str("\n  `stead trust --show` shows all of it\n");
    }
    text.push('\n');
    text
}
