//! The records of an event file. Numbers of fields are those of TensorFlow's `event.proto`, `summary.proto` and `tensor.proto`,
//! and of TensorBoard's `plugins/hparams/plugin_data.proto`.
use super::proto::Message;
use crc::{CRC_32_ISCSI, Crc};
use toml::{Table, Value};

/// CRC-32C.
const CHECKSUM: Crc<u32> = Crc::<u32>::new(&CRC_32_ISCSI);
/// What is added to a rotated checksum, so that a checksum of data with checksums is one of its own.
const MASK: u32 = 0xa282_ead8;
/// The type of a tensor of texts.
const DT_STRING: u64 = 7;
/// What TensorBoard shows a tensor as.
const DATA_CLASS_TENSOR: u64 = 2;
/// The plugin of hyperparameters.
const HPARAMS: &str = "hparams";

/// A record with its length and its checksums, as a TFRecord has it.
pub(super) fn record(event: Message) -> Vec<u8> {
    let event = event.into_bytes();
    let length = (event.len() as u64).to_le_bytes();
    [&length[..], &masked(&length), &event, &masked(&event)].concat()
}

fn masked(bytes: &[u8]) -> [u8; 4] {
    CHECKSUM.checksum(bytes).rotate_right(15).wrapping_add(MASK).to_le_bytes()
}

/// The first event of a file. Times are seconds since 1970.
pub(super) fn version(time: f64) -> Message {
    Message::new().double(1, time).bytes(3, "brain.Event:2")
}

/// Makes readers forget what former files of the run have from `step` on.
pub(super) fn start(time: f64, step: u64) -> Message {
    const START: u64 = 1;
    at(time, step).message(7, Message::new().integer(1, START))
}

/// An event of these values after so many steps.
pub(super) fn summary(time: f64, step: u64, values: impl IntoIterator<Item = Message>) -> Message {
    let values = values.into_iter().fold(Message::new(), |summary, value| summary.message(1, value));
    at(time, step).message(5, values)
}

fn at(time: f64, step: u64) -> Message {
    let event = Message::new().double(1, time);
    if step > 0 { event.integer(2, step) } else { event }
}

fn value(tag: &str) -> Message {
    Message::new().bytes(1, tag)
}

pub(super) fn scalar(tag: &str, number: f64) -> Message {
    value(tag).float(2, number as f32)
}

/// A PNG file of three channels.
pub(super) fn image(tag: &str, [height, width]: [u32; 2], png: &[u8]) -> Message {
    let image = Message::new().integer(1, height.into()).integer(2, width.into()).integer(3, 3).bytes(4, png);
    value(tag).message(4, image)
}

/// How often values lie where.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Histogram {
    pub(super) min: f64,
    pub(super) max: f64,
    pub(super) count: f64,
    pub(super) sum: f64,
    pub(super) sum_of_squares: f64,
    /// The right end of each bucket; the first begins at `min`.
    pub(super) limits: Vec<f64>,
    /// The counts of the buckets.
    pub(super) counts: Vec<f64>,
}

pub(super) fn histogram(tag: &str, histogram: &Histogram) -> Message {
    let Histogram { min, max, count, sum, sum_of_squares, limits, counts } = histogram;
    let message = Message::new().double(1, *min).double(2, *max).double(3, *count).double(4, *sum).double(5, *sum_of_squares);
    value(tag).message(5, message.doubles(6, limits).doubles(7, counts))
}

/// A text in Markdown.
pub(super) fn text(tag: &str, text: &str) -> Message {
    let one = Message::new().message(2, Message::new().integer(1, 1));
    let tensor = Message::new().integer(1, DT_STRING).message(2, one).bytes(8, text);
    let plugin = Message::new().bytes(1, "text");
    value(tag).message(8, tensor).message(9, Message::new().message(1, plugin).integer(4, DATA_CLASS_TENSOR))
}

/// The hyperparameters of a session that starts: each value of a section as `section.key`.
pub(super) fn session_start(time: f64, sections: &Table) -> Message {
    let values = sections.iter().flat_map(|(section, values)| {
        let values = values.as_table().into_iter().flatten();
        values.map(move |(key, value)| (format!("{section}.{key}"), hyperparameter(value)))
    });
    let mut values: Vec<(String, Message)> = values.collect();
    values.sort_by(|(one, _), (other, _)| one.cmp(other));
    let info = values
        .into_iter()
        .fold(Message::new(), |info, (key, value)| info.message(1, Message::new().bytes(1, key).message(2, value)));
    session("_hparams_/session_start_info", 3, info.double(5, time))
}

/// The end of a session that did all its epochs.
pub(super) fn session_end(time: f64) -> Message {
    const SUCCESS: u64 = 1;
    session("_hparams_/session_end_info", 4, Message::new().integer(1, SUCCESS).double(2, time))
}

fn session(tag: &str, field: u64, info: Message) -> Message {
    let plugin = Message::new().bytes(1, HPARAMS).bytes(2, Message::new().message(field, info).into_bytes());
    value(tag).message(9, Message::new().message(1, plugin))
}

/// A `google.protobuf.Value`.
fn hyperparameter(value: &Value) -> Message {
    match value {
        Value::Integer(number) => Message::new().double(2, *number as f64),
        Value::Float(number) => Message::new().double(2, *number),
        Value::Boolean(is) => Message::new().integer(4, (*is).into()),
        Value::String(text) => Message::new().bytes(3, text),
        other => Message::new().bytes(3, other.to_string()),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    /// The bytes are TensorBoard's: see tests/tensorboard/read.py.
    #[test]
    fn events_are_those_that_tensorboard_writes() {
        let values = Histogram {
            min: -1.0,
            max: 3.0,
            count: 4.0,
            sum: 2.5,
            sum_of_squares: 11.25,
            limits: vec![1.0, 3.0],
            counts: vec![3.0, 1.0],
        };
        let recipe: Table = "train = { lr = 0.25, drop_last = false }\noptimizer = { kind = 'sgd' }".parse().unwrap();
        let events = [
            version(1.5),
            start(1.5, 300),
            summary(1.5, 300, [scalar("train/loss", 0.5), scalar("lr", 0.0)]),
            summary(1.5, 300, [histogram("weights/fc", &values)]),
            summary(1.5, 300, [image("filters", [2, 3], b"\x89PNG")]),
            summary(1.5, 0, [text("recipe", "[train]")]),
            summary(1.5, 0, [session_start(1.5, &recipe)]),
            summary(1.5, 0, [session_end(2.5)]),
        ];
        let golden = include_bytes!("../../tests/tensorboard/golden.tfevents");
        let mut written = 0;
        for (index, event) in events.into_iter().enumerate() {
            let record = record(event);
            assert_eq!(record, golden[written..][..record.len()], "event {index}");
            written += record.len();
        }
        assert_eq!(written, golden.len());
    }
}
