//! What a pickle says, interpreted without Python: containers, tensors and the objects that hold them; nothing is run.
use super::allowance::{Allowance, Exceeded};
use std::collections::HashMap;
use std::io::{BufRead, Error, ErrorKind, Read, Result, copy, sink};
use std::rc::Rc;
use striate_torch::MAX_DIMS;

/// What may be called: what rebuilds tensors, containers, and the plain values that training scripts keep beside them.
const CALLABLE: [&str; 41] = [
    REBUILD_TENSOR[0],
    REBUILD_TENSOR[1],
    REBUILD_TENSOR[2],
    REBUILD_PARAMETER[0],
    REBUILD_PARAMETER[1],
    REBUILD_FROM_TYPE,
    "torch.Size",
    "torch.device",
    "torch.serialization._get_layout",
    "collections.OrderedDict",
    "collections.defaultdict",
    COUNTER,
    DEQUE,
    "builtins.set",
    "builtins.frozenset",
    "builtins.bytearray",
    "builtins.complex",
    "builtins.range",
    "builtins.slice",
    "__builtin__.set",
    "__builtin__.frozenset",
    "__builtin__.bytearray",
    "__builtin__.complex",
    "__builtin__.xrange",
    "__builtin__.slice",
    "_codecs.encode",
    "numpy.dtype",
    "numpy.core.multiarray.scalar",
    "numpy._core.multiarray.scalar",
    "numpy.core.multiarray._reconstruct",
    "numpy._core.multiarray._reconstruct",
    "numpy.ndarray",
    "pathlib.Path",
    "pathlib.PosixPath",
    "pathlib.WindowsPath",
    "decimal.Decimal",
    "datetime.datetime",
    "datetime.date",
    "datetime.time",
    "datetime.timezone",
    "datetime.timedelta",
];
/// Tensors from storage, offset, size and stride, the newest with a type.
const REBUILD_TENSOR: [&str; 3] =
    ["torch._utils._rebuild_tensor", "torch._utils._rebuild_tensor_v2", "torch._utils._rebuild_tensor_v3"];
/// Give back their first argument, a tensor.
const REBUILD_PARAMETER: [&str; 2] = ["torch._utils._rebuild_parameter", "torch._utils._rebuild_parameter_with_state"];
/// Counts, as a scheduler has for its milestones, and a queue: both begin with their first argument.
const COUNTER: &str = "collections.Counter";
const DEQUE: &str = "collections.deque";
/// Calls its first argument.
const REBUILD_FROM_TYPE: &str = "torch._tensor._rebuild_from_type_v2";
/// No name of a module or a function is longer.
const LONGEST_NAME: u64 = 1000;
/// Bytes that an instruction may take in time, and what a value, a node and a place in the memo take at most.
const INSTRUCTION_BYTES: u64 = 16;
const VALUE_BYTES: u64 = 48;
const NODE_BYTES: u64 = 64;
const MEMO_BYTES: u64 = 64;

/// A value of the program; what holds others is a [`Node`], so that values are small, and cycles and depth do no harm.
#[derive(Debug, Clone)]
pub(super) enum Value {
    Mark,
    /// A module's member, by its full name.
    Global(Rc<str>),
    Text(Rc<str>),
    Int(i64),
    /// The place of a node.
    Node(usize),
    /// What holds no tensors: None, floats, bytes, results of calls that are not needed.
    Other,
}

/// What holds values.
#[derive(Debug)]
pub(super) enum Node {
    /// A list or a tuple.
    Sequence(Vec<Value>),
    Dict(Vec<(Value, Value)>),
    Storage(Box<Storage>),
    Tensor(Box<TensorSpec>),
    /// An object that is not built here, with the dictionary of its attributes.
    Object {
        class: Rc<str>,
        state: Option<usize>,
    },
}

/// Values that tensors view, kept elsewhere in the file.
#[derive(Debug, Clone)]
pub(super) struct Storage {
    /// Its name in the file.
    pub(super) key: Rc<str>,
    /// The class of it, such as `torch.FloatStorage`.
    pub(super) class: Rc<str>,
    /// Where it begins in that of the file, in values: old files have storages that view others.
    pub(super) start: i64,
}

/// A view of a storage.
#[derive(Debug, Clone)]
pub(super) struct TensorSpec {
    pub(super) storage: Storage,
    /// The type of its values, where the storage has none: `torch.uint16`.
    pub(super) dtype: Option<Rc<str>>,
    pub(super) offset: i64,
    pub(super) size: Vec<i64>,
    pub(super) stride: Vec<i64>,
    /// Whether the values stand for their negatives, as in the imaginary part of a conjugate.
    pub(super) negated: bool,
}

/// All that a pickle holds.
#[derive(Debug)]
pub(super) struct Pickle {
    nodes: Vec<Node>,
    pub(super) root: Value,
}

impl Pickle {
    pub(super) fn node(&self, value: &Value) -> Option<&Node> {
        match value {
            Value::Node(place) => self.nodes.get(*place),
            _ => None,
        }
    }

    /// The entries of a dictionary, or the attributes of an object.
    pub(super) fn entries(&self, value: &Value) -> &[(Value, Value)] {
        match self.node(value) {
            Some(Node::Dict(entries)) => entries,
            Some(Node::Object { state: Some(state), .. }) => match &self.nodes[*state] {
                Node::Dict(entries) => entries,
                _ => &[],
            },
            _ => &[],
        }
    }

    /// The values of a list or a tuple.
    pub(super) fn items(&self, value: &Value) -> &[Value] {
        match self.node(value) {
            Some(Node::Sequence(items)) => items,
            _ => &[],
        }
    }

    /// Every storage that a tensor views.
    pub(super) fn storages(&self) -> impl Iterator<Item = &Storage> {
        self.nodes.iter().filter_map(|node| match node {
            Node::Storage(storage) => Some(&**storage),
            _ => None,
        })
    }
}

/// Why a pickle is not taken.
#[derive(Debug)]
pub(super) enum Fault {
    /// It cannot be read, makes no sense ([`ErrorKind::InvalidData`]), or takes too much ([`Exceeded`]).
    Io(Error),
    /// It calls this, and may not.
    Calls(String),
}

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        Self::Io(error)
    }
}

impl From<Exceeded> for Fault {
    fn from(exceeded: Exceeded) -> Self {
        Self::Io(exceeded.into())
    }
}

/// Reads one pickle; the reader is left behind its end.
///
/// # Errors
///
/// The first thing that it calls and may not, wherever the result goes; the reader's errors; a program without sense, and one
/// that takes more than `allowance`.
pub(super) fn read(reader: &mut impl BufRead, allowance: &mut Allowance) -> std::result::Result<Pickle, Fault> {
    Interpreter { reader, allowance, stack: Vec::new(), memo: HashMap::new(), nodes: Vec::new() }.run()
}

struct Interpreter<'r, R> {
    reader: &'r mut R,
    allowance: &'r mut Allowance,
    stack: Vec<Value>,
    memo: HashMap<u64, Value>,
    nodes: Vec<Node>,
}

impl<R: BufRead> Interpreter<'_, R> {
    fn run(mut self) -> std::result::Result<Pickle, Fault> {
        use Value::{Global, Int, Mark, Other, Text};
        loop {
            self.allowance.take(INSTRUCTION_BYTES)?;
            let value = match self.number(1)? as u8 {
                b'.' => {
                    let root = self.pop()?;
                    return Ok(Pickle { nodes: self.nodes, root });
                }
                0x80 => self.skip(1, None)?, // PROTO
                0x95 => self.skip(8, None)?, // FRAME
                0x97 => Some(Other),         // NEXT_BUFFER
                0x98 => None,                // READONLY_BUFFER
                b'(' => Some(Mark),
                // Plain values.
                b'N' | 0x88 | 0x89 => Some(Other),
                b'K' => Some(Int(self.number(1)? as i64)),
                b'M' => Some(Int(self.number(2)? as i64)),
                b'J' => Some(Int(self.number(4)? as i32 as i64)),
                b'G' => self.skip(8, Some(Other))?,
                b'I' | b'L' => Some(self.line()?.trim_end_matches('L').parse().map_or(Other, Int)),
                b'F' | b'P' => self.line().map(|_| Some(Other))?,
                b'S' | b'V' => Some(Text(self.line()?)),
                0x8a => Some(self.long()?),
                b'C' => self.counted(1)?,
                b'B' | 0x8b => self.counted(4)?,
                0x8e | 0x96 => self.counted(8)?,
                b'U' | 0x8c => Some(self.text(1)?),
                b'T' | b'X' => Some(self.text(4)?),
                0x8d => Some(self.text(8)?),
                // Containers.
                b']' | b')' | 0x8f => Some(self.add(Node::Sequence(Vec::new()))?),
                b'}' => Some(self.add(Node::Dict(Vec::new()))?),
                b't' | b'l' | 0x91 => {
                    let items = self.pop_to_mark()?;
                    Some(self.add(Node::Sequence(items))?)
                }
                count @ 0x85..=0x87 => {
                    let items = self.pop_several(usize::from(count - 0x84))?;
                    Some(self.add(Node::Sequence(items))?)
                }
                b'd' => {
                    let entries = pairs(self.pop_to_mark()?);
                    Some(self.add(Node::Dict(entries))?)
                }
                b'u' => {
                    let items = self.pop_to_mark()?;
                    self.set(items)?
                }
                b's' => {
                    let items = self.pop_several(2)?;
                    self.set(items)?
                }
                b'e' | 0x90 => {
                    let items = self.pop_to_mark()?;
                    self.append(items)?
                }
                b'a' => {
                    let item = self.pop()?;
                    self.append(vec![item])?
                }
                b'b' => {
                    let state = self.pop()?;
                    self.build(&state)?
                }
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
                b'Q' => {
                    let id = self.pop()?;
                    Some(self.persistent(&id)?)
                }
                // Names and calls.
                b'c' => Some(Global(self.name()?)),
                0x93 => match &self.pop_several(2)?[..] {
                    [Text(module), Text(name)] => Some(Global(format!("{module}.{name}").into())),
                    _ => return Err(senseless("a name that is no text").into()),
                },
                b'i' => {
                    let callee = Global(self.name()?);
                    let arguments = self.pop_to_mark()?;
                    Some(self.call(&callee, &arguments)?)
                }
                b'o' => {
                    let values = self.pop_to_mark()?;
                    let (callee, arguments) = values.split_first().ok_or_else(|| senseless("an object without a class"))?;
                    Some(self.call(callee, arguments)?)
                }
                b'R' => {
                    let (arguments, callee) = (self.pop()?, self.pop()?);
                    let arguments = self.copied_items(&arguments)?;
                    Some(self.call(&callee, &arguments)?)
                }
                // An object of a class, which is not told to initialise itself.
                new @ (0x81 | 0x92) => match &self.pop_several(if new == 0x81 { 2 } else { 3 })?[..] {
                    [Global(class), ..] => Some(self.add(Node::Object { class: class.clone(), state: None })?),
                    _ => Some(Other),
                },
                other => return Err(senseless(&format!("the unknown instruction {other:#04x}")).into()),
            };
            if let Some(value) = value {
                self.allowance.take(VALUE_BYTES)?;
                self.stack.push(value);
            }
        }
    }

    fn add(&mut self, node: Node) -> Result<Value> {
        self.allowance.take(NODE_BYTES)?;
        self.nodes.push(node);
        Ok(Value::Node(self.nodes.len() - 1))
    }

    /// The node at the top of the stack.
    fn top_node(&mut self) -> Result<Option<&mut Node>> {
        Ok(match self.top()? {
            Value::Node(place) => self.nodes.get_mut(place),
            _ => None,
        })
    }

    fn set(&mut self, items: Vec<Value>) -> Result<Option<Value>> {
        if let Some(Node::Dict(entries)) = self.top_node()? {
            entries.extend(pairs(items));
        }
        Ok(None)
    }

    fn append(&mut self, items: Vec<Value>) -> Result<Option<Value>> {
        if let Some(Node::Sequence(values)) = self.top_node()? {
            values.extend(items);
        }
        Ok(None)
    }

    /// Gives an object its attributes: a dictionary, or a tuple of one and of slots.
    fn build(&mut self, attributes: &Value) -> Result<Option<Value>> {
        let attributes = self.items(attributes).first().cloned().unwrap_or_else(|| attributes.clone());
        if let (Some(Node::Object { state, .. }), Value::Node(place)) = (self.top_node()?, attributes) {
            *state = Some(place);
        }
        Ok(None)
    }

    fn items(&self, value: &Value) -> &[Value] {
        match value {
            Value::Node(place) => match &self.nodes[*place] {
                Node::Sequence(items) => items,
                _ => &[],
            },
            _ => &[],
        }
    }

    fn copied_items(&mut self, value: &Value) -> Result<Vec<Value>> {
        let count = self.items(value).len();
        self.allowance.take_all(count, VALUE_BYTES)?;
        Ok(self.items(value).to_vec())
    }

    /// What PyTorch keeps apart: `("storage", class, key, device, values, view)` stands for a storage, whose view is
    /// `(key, start, values)`, and before 1.6 `("module", class, file, source)` for the class of a module.
    fn persistent(&mut self, id: &Value) -> Result<Value> {
        if let [Value::Text(what), class @ Value::Global(_), _, _] = self.items(id)
            && **what == *"module"
        {
            return Ok(class.clone());
        }
        let [Value::Text(what), Value::Global(class), Value::Text(key), _, _, view @ ..] = self.items(id) else {
            return Ok(Value::Other);
        };
        if **what != *"storage" {
            return Ok(Value::Other);
        }
        let start = match view.first().map(|view| self.items(view)) {
            Some([_, Value::Int(start), _]) => *start,
            _ => 0,
        };
        let storage = Storage { key: key.clone(), class: class.clone(), start };
        self.add(Node::Storage(Box::new(storage)))
    }

    /// What a call gives, as far as that is needed.
    fn call(&mut self, callee: &Value, arguments: &[Value]) -> std::result::Result<Value, Fault> {
        let name = match callee {
            Value::Global(name) => name.clone(),
            Value::Node(place) => match &self.nodes[*place] {
                Node::Object { class, .. } => return Err(Fault::Calls(class.to_string())),
                _ => return Err(Fault::Calls("a function made on the way".to_owned())),
            },
            _ => return Err(Fault::Calls("a function made on the way".to_owned())),
        };
        if !CALLABLE.contains(&&*name) {
            return Err(Fault::Calls(name.to_string()));
        }
        if *name == *REBUILD_FROM_TYPE {
            return match arguments {
                [Value::Global(inner), _, values, ..] if **inner != *REBUILD_FROM_TYPE => {
                    let values = self.copied_items(values)?;
                    self.call(&Value::Global(inner.clone()), &values)
                }
                _ => Err(Fault::Calls(name.to_string())),
            };
        }
        if REBUILD_PARAMETER.contains(&&*name) || name.ends_with("set") || matches!(&*name, COUNTER | DEQUE) {
            return Ok(arguments.first().cloned().unwrap_or(Value::Other));
        }
        if REBUILD_TENSOR.contains(&&*name) {
            return Ok(self.tensor(arguments)?);
        }
        if name.starts_with("collections.") {
            let pairs = arguments.first().map(|entries| self.copied_items(entries)).transpose()?.unwrap_or_default();
            let entry = |pair: &Value| match self.items(pair) {
                [key, value] => Some((key.clone(), value.clone())),
                _ => None,
            };
            let entries = pairs.iter().filter_map(entry).collect();
            return Ok(self.add(Node::Dict(entries))?);
        }
        Ok(Value::Other)
    }

    fn tensor(&mut self, arguments: &[Value]) -> Result<Value> {
        let [Value::Node(storage), Value::Int(offset), size, stride, rest @ ..] = arguments else { return Ok(Value::Other) };
        let Node::Storage(storage) = &self.nodes[*storage] else { return Ok(Value::Other) };
        let dims = self.items(size).len();
        if dims > MAX_DIMS {
            return Err(senseless(&format!("a tensor of {dims} dimensions, where libtorch computes with at most {MAX_DIMS}")));
        }
        let numbers = |value: &Value| -> Option<Vec<i64>> {
            let number = |value: &Value| if let Value::Int(number) = value { Some(*number) } else { None };
            self.items(value).iter().map(number).collect()
        };
        let (Some(size), Some(stride)) = (numbers(size), numbers(stride)) else { return Ok(Value::Other) };
        let dtype = match rest.get(2) {
            Some(Value::Global(dtype)) => Some(dtype.clone()),
            _ => None,
        };
        // Requires a gradient, hooks, in the newest a type, and what else there is to say.
        let neg = |(key, _): &(Value, Value)| matches!(key, Value::Text(key) if **key == *"neg");
        let said = |value: &Value| matches!(value, Value::Node(place) if matches!(&self.nodes[*place], Node::Dict(said) if said.iter().any(neg)));
        let negated = rest.iter().skip(2).any(said);
        let tensor = TensorSpec { storage: (**storage).clone(), dtype, offset: *offset, size, stride, negated };
        self.allowance.take_all(size_of::<TensorSpec>() + 16 * dims, 1)?;
        self.add(Node::Tensor(Box::new(tensor)))
    }

    /// An unsigned number of so many bytes.
    fn number(&mut self, bytes: usize) -> Result<u64> {
        let mut number = [0; 8];
        self.reader.read_exact(&mut number[..bytes])?;
        Ok(u64::from_le_bytes(number))
    }

    fn skip(&mut self, bytes: u64, value: Option<Value>) -> Result<Option<Value>> {
        self.allowance.take(bytes)?;
        match copy(&mut self.reader.take(bytes), &mut sink())? == bytes {
            true => Ok(value),
            false => Err(ErrorKind::UnexpectedEof.into()),
        }
    }

    /// Skips a value whose length comes before it, as a number of so many bytes.
    fn counted(&mut self, bytes: usize) -> Result<Option<Value>> {
        let length = self.number(bytes)?;
        self.skip(length, Some(Value::Other))
    }

    /// A whole number of any length; one of more than 8 bytes is no size.
    fn long(&mut self) -> Result<Value> {
        match self.number(1)? {
            0 => Ok(Value::Int(0)),
            bytes @ 1..=8 => {
                let unused = 64 - 8 * bytes;
                let number = self.number(bytes as usize)?;
                Ok(Value::Int((number << unused) as i64 >> unused))
            }
            bytes => self.skip(bytes, None).map(|_| Value::Other),
        }
    }

    /// A text whose length comes before it; a long one is no name.
    fn text(&mut self, bytes: usize) -> Result<Value> {
        let length = self.number(bytes)?;
        if length > LONGEST_NAME {
            return self.skip(length, None).map(|_| Value::Other);
        }
        self.allowance.take(length)?;
        let mut text = vec![0; length as usize];
        self.reader.read_exact(&mut text)?;
        Ok(Value::Text(String::from_utf8_lossy(&text).into()))
    }

    fn line(&mut self) -> Result<Rc<str>> {
        let mut line = Vec::new();
        self.reader.read_until(b'\n', &mut line)?;
        self.allowance.take_all(line.len(), 1)?;
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
        self.allowance.take(MEMO_BYTES)?;
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

/// The entries of a dictionary from keys and values in turns.
fn pairs(items: Vec<Value>) -> Vec<(Value, Value)> {
    let mut items = items.into_iter();
    std::iter::from_fn(|| Some((items.next()?, items.next()?))).collect()
}
