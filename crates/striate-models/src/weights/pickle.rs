//! What a pickle calls, read off its program without building anything.
use std::collections::HashMap;
use std::io::{BufRead, Error, ErrorKind, Read, Result, copy, sink};
use std::rc::Rc;

/// What may be called: what rebuilds tensors, containers, and the plain values that training scripts keep beside them.
const CALLABLE: [&str; 20] = [
    "torch._utils._rebuild_tensor",
    "torch._utils._rebuild_tensor_v2",
    "torch._utils._rebuild_tensor_v3",
    "torch._utils._rebuild_parameter",
    "torch._utils._rebuild_parameter_with_state",
    REBUILD_FROM_TYPE,
    "torch.Size",
    "torch.device",
    "collections.OrderedDict",
    "collections.defaultdict",
    "builtins.set",
    "builtins.frozenset",
    "builtins.bytearray",
    "__builtin__.set",
    "__builtin__.frozenset",
    "__builtin__.bytearray",
    "_codecs.encode",
    "numpy.dtype",
    "numpy.core.multiarray.scalar",
    "numpy._core.multiarray.scalar",
];
/// Calls its first argument.
const REBUILD_FROM_TYPE: &str = "torch._tensor._rebuild_from_type_v2";
/// No name of a module or a function is longer.
const LONGEST_NAME: u64 = 1000;

/// As much of a value as tells what a call calls.
#[derive(Clone)]
enum Value {
    Mark,
    /// A module's member, by its full name.
    Global(Rc<str>),
    /// An object that is not built here, by the name of its class.
    Object(Rc<str>),
    Text(Rc<str>),
    /// A tuple, with its first element if that is a module's member.
    Tuple(Option<Rc<str>>),
    Other,
}

impl Value {
    fn global(&self) -> Option<Rc<str>> {
        match self {
            Self::Global(name) => Some(name.clone()),
            _ => None,
        }
    }
}

/// The first thing that the pickle calls and may not, wherever in it; the reader is left behind the pickle's end.
///
/// # Errors
///
/// The reader's, and [`ErrorKind::InvalidData`] where the program makes no sense.
pub(super) fn forbidden_call(reader: &mut impl BufRead) -> Result<Option<String>> {
    Scan { reader, stack: Vec::new(), memo: HashMap::new() }.run()
}

struct Scan<'r, R> {
    reader: &'r mut R,
    stack: Vec<Value>,
    memo: HashMap<u64, Value>,
}

impl<R: BufRead> Scan<'_, R> {
    fn run(&mut self) -> Result<Option<String>> {
        use Value::{Global, Mark, Object, Other, Text, Tuple};
        loop {
            let value = match self.number(1)? as u8 {
                b'.' => return Ok(None),
                0x80 => self.skip(1, None)?, // PROTO
                0x95 => self.skip(8, None)?, // FRAME
                0x97 => Some(Other),         // NEXT_BUFFER
                0x98 => None,                // READONLY_BUFFER
                b'(' => Some(Mark),
                // Values that call nothing.
                b'N' | 0x88 | 0x89 | b']' | b'}' | 0x8f => Some(Other),
                b')' => Some(Tuple(None)),
                b'K' => self.skip(1, Some(Other))?,
                b'M' => self.skip(2, Some(Other))?,
                b'J' => self.skip(4, Some(Other))?,
                b'G' => self.skip(8, Some(Other))?,
                b'I' | b'L' | b'F' | b'P' => self.line().map(|_| Some(Other))?,
                b'S' | b'V' => Some(Text(self.line()?)),
                b'C' | 0x8a => self.counted(1, Other)?,
                b'B' | 0x8b => self.counted(4, Other)?,
                0x8e | 0x96 => self.counted(8, Other)?,
                b'U' | 0x8c => Some(self.text(1)?),
                b'T' | b'X' => Some(self.text(4)?),
                0x8d => Some(self.text(8)?),
                // Containers.
                b't' => {
                    let items = self.pop_to_mark()?;
                    Some(Tuple(items.first().and_then(Value::global)))
                }
                count @ 0x85..=0x87 => {
                    let items = self.pop_several(usize::from(count - 0x84))?;
                    Some(Tuple(items.first().and_then(Value::global)))
                }
                b'd' | b'l' | 0x91 => self.pop_to_mark().map(|_| Some(Other))?,
                b'u' | b'e' | 0x90 => self.pop_to_mark().map(|_| None)?,
                b'a' | b'b' => self.pop().map(|_| None)?,
                b's' => self.pop_several(2).map(|_| None)?,
                // Stack and memo.
                b'0' => self.pop().map(|_| None)?,
                b'1' => self.pop_to_mark().map(|_| None)?,
                b'2' => Some(self.top()?),
                b'p' => self.memorise(Key::Line)?,
                b'q' => self.memorise(Key::Bytes(1))?,
                b'r' => self.memorise(Key::Bytes(4))?,
                0x94 => self.memorise(Key::Next)?,
                b'g' => self.recall(Key::Line)?,
                b'h' => self.recall(Key::Bytes(1))?,
                b'j' => self.recall(Key::Bytes(4))?,
                // A storage of the file.
                b'Q' => self.pop().map(|_| Some(Other))?,
                // Names and calls.
                b'c' => Some(Global(self.name()?)),
                0x93 => match &self.pop_several(2)?[..] {
                    [Text(module), Text(name)] => Some(Global(format!("{module}.{name}").into())),
                    _ => return Err(senseless("a name that is no text")),
                },
                b'i' => {
                    let callee = Global(self.name()?);
                    let arguments = self.pop_to_mark()?;
                    if let Some(name) = forbidden(&callee, arguments.first()) {
                        return Ok(Some(name));
                    }
                    Some(Other)
                }
                b'o' => {
                    let values = self.pop_to_mark()?;
                    let callee = values.first().ok_or_else(|| senseless("an object without a class"))?;
                    if let Some(name) = forbidden(callee, values.get(1)) {
                        return Ok(Some(name));
                    }
                    Some(Other)
                }
                b'R' => {
                    let (arguments, callee) = (self.pop()?, self.pop()?);
                    if let Some(name) = forbidden(&callee, Some(&arguments)) {
                        return Ok(Some(name));
                    }
                    Some(Other)
                }
                // An object of a class, which is not told to initialise itself.
                new @ (0x81 | 0x92) => {
                    let values = self.pop_several(if new == 0x81 { 2 } else { 3 })?;
                    Some(values[0].global().map_or(Other, Object))
                }
                other => return Err(senseless(&format!("the unknown instruction {other:#04x}"))),
            };
            self.stack.extend(value);
        }
    }

    /// An unsigned number of so many bytes.
    fn number(&mut self, bytes: usize) -> Result<u64> {
        let mut number = [0; 8];
        self.reader.read_exact(&mut number[..bytes])?;
        Ok(u64::from_le_bytes(number))
    }

    fn skip(&mut self, bytes: u64, value: Option<Value>) -> Result<Option<Value>> {
        match copy(&mut self.reader.take(bytes), &mut sink())? == bytes {
            true => Ok(value),
            false => Err(ErrorKind::UnexpectedEof.into()),
        }
    }

    /// Skips a value whose length comes before it, as a number of so many bytes.
    fn counted(&mut self, bytes: usize, value: Value) -> Result<Option<Value>> {
        let length = self.number(bytes)?;
        self.skip(length, Some(value))
    }

    /// A text whose length comes before it; a long one is no name.
    fn text(&mut self, bytes: usize) -> Result<Value> {
        let length = self.number(bytes)?;
        if length > LONGEST_NAME {
            return self.skip(length, None).map(|_| Value::Other);
        }
        let mut text = vec![0; length as usize];
        self.reader.read_exact(&mut text)?;
        Ok(Value::Text(String::from_utf8_lossy(&text).into()))
    }

    fn line(&mut self) -> Result<Rc<str>> {
        let mut line = Vec::new();
        self.reader.read_until(b'\n', &mut line)?;
        Ok(String::from_utf8_lossy(&line).trim_end().into())
    }

    /// Two lines: a module and its member.
    fn name(&mut self) -> Result<Rc<str>> {
        let (module, name) = (self.line()?, self.line()?);
        Ok(format!("{module}.{name}").into())
    }

    fn pop(&mut self) -> Result<Value> {
        self.stack.pop().ok_or_else(|| senseless("a value that is not there"))
    }

    fn top(&self) -> Result<Value> {
        self.stack.last().cloned().ok_or_else(|| senseless("a value that is not there"))
    }

    fn pop_several(&mut self, count: usize) -> Result<Vec<Value>> {
        let start = self.stack.len().checked_sub(count).ok_or_else(|| senseless("a value that is not there"))?;
        Ok(self.stack.split_off(start))
    }

    fn pop_to_mark(&mut self) -> Result<Vec<Value>> {
        let mark = self.stack.iter().rposition(|value| matches!(value, Value::Mark));
        let items = self.stack.split_off(mark.ok_or_else(|| senseless("a mark that is not there"))? + 1);
        self.stack.pop();
        Ok(items)
    }

    fn key(&mut self, key: Key) -> Result<u64> {
        match key {
            Key::Line => self.line()?.parse().map_err(|_| senseless("a place that is no number")),
            Key::Bytes(count) => self.number(count),
            Key::Next => Ok(self.memo.len() as u64),
        }
    }

    fn memorise(&mut self, key: Key) -> Result<Option<Value>> {
        let key = self.key(key)?;
        let value = self.top()?;
        self.memo.insert(key, value);
        Ok(None)
    }

    fn recall(&mut self, key: Key) -> Result<Option<Value>> {
        let key = self.key(key)?;
        self.memo.get(&key).cloned().map(Some).ok_or_else(|| senseless("a value that is not there"))
    }
}

/// How the place of a value in the memo is told.
#[derive(Clone, Copy)]
enum Key {
    Line,
    Bytes(usize),
    Next,
}

fn senseless(what: &str) -> Error {
    Error::new(ErrorKind::InvalidData, format!("its pickle has {what}"))
}

/// The name of what is called, if it may not be.
fn forbidden(callee: &Value, arguments: Option<&Value>) -> Option<String> {
    match (callee, arguments) {
        (Value::Global(name), Some(Value::Tuple(Some(function)))) if **name == *REBUILD_FROM_TYPE => {
            (!CALLABLE.contains(&&**function)).then(|| function.to_string())
        }
        (Value::Global(name), _) if **name == *REBUILD_FROM_TYPE => Some(name.to_string()),
        (Value::Global(name), _) => (!CALLABLE.contains(&&**name)).then(|| name.to_string()),
        (Value::Object(name), _) => Some(name.to_string()),
        _ => Some("a function made on the way".to_owned()),
    }
}
