//! Elements of XML that libvirt reads.

use std::io;

use quick_xml::{
    events::{BytesText, Event},
    writer::Writer,
};

pub(super) type W = Writer<Vec<u8>>;

/// Writes an element with a text.
pub(super) fn text(w: &mut W, name: &str, value: &str) -> io::Result<()> {
    w.create_element(name)
        .write_text_content(BytesText::new(value))?;
    Ok(())
}

/// Writes text that is XML already.
pub(super) fn raw(w: &mut W, xml: &str) -> io::Result<()> {
    w.write_event(Event::Text(BytesText::from_escaped(xml)))
}

/// Writes an element without content.
pub(super) fn empty(w: &mut W, name: &str, attributes: &[(&str, &str)]) -> io::Result<()> {
    w.create_element(name)
        .with_attributes(attributes.iter().copied())
        .write_empty()?;
    Ok(())
}
