//! Decodes `link`: the conditions of links between machines.

use crate::{
    machinefile::{
        diagnostics::{MachinefileError, Span, Spanned},
        node::Node,
    },
    network::{Delay, Loss, Rate, Settings},
};

const PROPERTIES: [&str; 6] = ["latency", "jitter", "loss", "rate", "network", "one-way"];

#[derive(Clone)]
pub(crate) struct LinkDraft {
    /// Two: their link. One: all its links. None: all links.
    pub machines: Vec<Spanned<String>>,
    pub network: Option<Spanned<String>>,
    pub one_way: bool,
    pub settings: Settings,
    pub here: Span,
}

pub(super) fn link(node: &mut Node<'_>) -> Option<LinkDraft> {
    let here = node.here();
    // What tc-netem(8) and browsers call so.
    let is_foreign = node.foreign_properties(&|name, value| {
        let own = match name {
            "delay" | "lag" => "latency",
            "bandwidth" | "throughput" | "bw" => "rate",
            "drop" | "packet-loss" => "loss",
            "oneway" | "one_way" => "one-way",
            _ => return None,
        };
        Some(format!("write {own}={value}"))
    });
    if !is_foreign {
        node.properties(&PROPERTIES);
    }
    node.no_children_but_properties(&PROPERTIES);
    node.at_most(2);
    let machines = match node.is_without_arguments() {
        true => Vec::new(),
        false => node.strings("the name of a machine"),
    };
    let said = is_foreign || (PROPERTIES[..4].iter()).any(|name| node.has_property(name));
    if !said {
        node.error(
            MachinefileError::new(&here, "this `link` sets nothing", "no conditions").help(
                "add latency=, jitter=, loss= or rate=: link \"web\" \"db\" latency=\"80ms\"",
            ),
        );
    }
    let settings = Settings {
        cut: false,
        latency: (node.property_with_unit("latency", "80ms", Delay::parse)).map(|it| it.value),
        jitter: (node.property_with_unit("jitter", "10ms", Delay::parse)).map(|it| it.value),
        loss: (node.property_with_unit("loss", "2%", Loss::parse)).map(|it| it.value),
        rate: (node.property_with_unit("rate", "10mbit", Rate::parse)).map(|it| it.value),
    };
    let network = node.property_string("network");
    let one_way = node.property_bool("one-way");
    if let Some(one_way) = &one_way
        && one_way.value
        && machines.is_empty()
    {
        node.error(
            MachinefileError::new(
                &one_way.span,
                "`one-way=#true` needs the machine that sends",
                "no machine before it",
            )
            .help("name it first: link \"web\" \"db\" latency=\"80ms\" one-way=#true"),
        );
    }
    (said && !is_foreign && machines.len() <= 2).then_some(LinkDraft {
        machines,
        network,
        one_way: one_way.is_some_and(|it| it.value),
        settings,
        here,
    })
}
