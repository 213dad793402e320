//! Small files that declare much, each with the name of its reader.

use flate2::write::GzEncoder;
use flate2::{Compress, Compression, Crc, FlushCompress};
use std::io::Write;

type Bomb = (&'static str, &'static str, Vec<u8>);

const MB: usize = 1_000_000;
const MIB: usize = 1 << 20;
/// A scalar tensor of the storage `0`.
const TENSOR: &[u8] = b"ctorch._utils\n_rebuild_tensor_v2\n((X\x07\0\0\0storagectorch\nFloatStorage\nX\x01\0\0\x000X\x03\0\0\0cpuK\x01tQK\0))\x89NtR";

pub(crate) fn all() -> Vec<Bomb> {
    [pickles(), archives(), tables(), graphs(), pictures(), recipes(), lists(), shards()].concat()
}

fn pickle(parts: &[&[u8]]) -> Vec<u8> {
    [b"\x80\x02".as_slice(), &parts.concat(), b"."].concat()
}

/// A text of a pickle.
fn text(text: &str) -> Vec<u8> {
    [b"X".as_slice(), &(text.len() as u32).to_le_bytes(), text.as_bytes()].concat()
}

fn pickles() -> Vec<Bomb> {
    let long = text(&"k".repeat(1000));
    let many = |instructions: &[u8], bytes: usize| instructions.repeat(bytes / instructions.len());
    // A module whose two parts are one module, whose two parts are one module, ...
    let module = [b"ctorch.nn\nModule\n)\x81}(".as_slice(), &text("_modules"), b"}"].concat();
    let two_of_the_last = [b"(".as_slice(), &text("a"), b"g0\n", &text("b"), b"g0\nuub"].concat();
    let leaf = [&module[..], b"ub"].concat();
    let tree = [&leaf[..], b"p0\n", &[&module[..], &two_of_the_last, b"p0\n"].concat().repeat(60)].concat();
    vec![
        ("pickle", "a value a byte", pickle(&[&many(b"N", MB - 10)])),
        ("pickle", "a dictionary a byte", pickle(&[&many(b"}", MB - 10)])),
        ("pickle", "a value and its place in the memo in two bytes", pickle(&[&many(b"N\x94", MB - 10)])),
        ("pickle", "texts of nothing but letters that are no UTF-8", pickle(&[b"V", &[0xff; MB - 100], b"\n"])),
        (
            "pickle",
            "a long tuple given to a call again and again",
            pickle(&[b"(", &many(b"N", MB / 2), b"tq\0ccollections\nOrderedDict\nq\x010", &many(b"h\x01h\0R0", MB / 3)]),
        ),
        (
            "pickle",
            "a tensor under one long key again and again",
            pickle(&[&long, b"q\0", TENSOR, b"q\x01}(", &many(b"h\0h\x01", MB - 2000), b"u"]),
        ),
        (
            "pickle",
            "a dictionary under one long key again and again",
            pickle(&[&long, b"q\0}q\x01}(", &many(b"h\0h\x01", MB - 2000), b"u"]),
        ),
        (
            "pickle",
            "a tensor of many dimensions",
            pickle(&[&TENSOR[..TENSOR.len() - 6], b"(", &many(b"K\x01", MB / 2), b"t)\x89NtR"]),
        ),
        ("pickle", "a tree of modules that is as wide as deep", pickle(&[&tree])),
        ("pickle", "nested as deep as it is long", pickle(&[&many(b"](", MB / 2), &many(b"ta", MB / 2 - 10)])),
    ]
}

/// A deflate stream of each of these texts again and again. It has blocks that are whole in themselves, so that many megabytes
/// are made in no time.
fn deflated(texts: &[(&[u8], usize)]) -> Vec<u8> {
    let block = |(text, times): &(&[u8], usize)| {
        let mut block = Vec::with_capacity(text.len() + 1000);
        Compress::new(Compression::best(), false).compress_vec(text, &mut block, FlushCompress::Sync).unwrap();
        block.repeat(*times)
    };
    let last: &[u8] = &[3, 0];
    [texts.iter().map(block).collect::<Vec<_>>().concat(), last.to_vec()].concat()
}

/// A PyTorch archive of these entries and deflate streams.
fn archive(entries: &[(&str, &[u8])]) -> Vec<u8> {
    let (mut file, mut directory) = (Vec::new(), Vec::new());
    for (name, content) in entries {
        let length = content.len() as u32;
        // Version 2.0, deflated, no time, a checksum of 0, and both lengths, of which the second is what it says that it unpacks to.
        let fields =
            [&[20, 0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0, 0, 0][..], &length.to_le_bytes(), &(60_u32 << 20).to_le_bytes()].concat();
        let names = [&(name.len() as u16).to_le_bytes()[..], &[0, 0]].concat();
        let place = (file.len() as u32).to_le_bytes();
        directory.extend([b"PK\x01\x02\x14\0", &fields[..], &names, &[0; 10], &place, name.as_bytes()].concat());
        file.extend([b"PK\x03\x04", &fields[..], &names, name.as_bytes(), content].concat());
    }
    let count = (entries.len() as u16).to_le_bytes();
    let (size, place) = ((directory.len() as u32).to_le_bytes(), (file.len() as u32).to_le_bytes());
    [&file[..], &directory, b"PK\x05\x06\0\0\0\0", &count, &count, &size, &place, &[0, 0]].concat()
}

fn archives() -> Vec<Bomb> {
    let start: &[u8] = b"\x80\x02";
    let nones = deflated(&[(start, 1), (&[b'N'; MIB], 30), (b".", 1)]);
    // Bytes that are skipped.
    let skipped = deflated(&[(start, 1), (b"B\0\0\0\x03", 1), (&[0; MIB], 48), (b"0}.", 1)]);
    let tensor_of = |kind: &str| {
        let place = TENSOR.windows(5).position(|window| window == b"Float").unwrap();
        [&text(kind)[..], &TENSOR[..place], kind.as_bytes(), &TENSOR[place + 5..]].concat()
    };
    // One storage, of as many types as there are.
    let types = ["Float", "Double", "Half", "BFloat16", "Long", "Int", "Short", "Char", "Byte", "Bool"].map(tensor_of);
    let types = deflated(&[(&pickle(&[b"}(", &types.concat(), b"u"]), 1)]);
    let storage = deflated(&[(&[0; MIB], 60)]);
    let names: Vec<String> = (0..15).map(|number| format!("a/{number}.pkl")).collect();
    let pickles: Vec<(&str, &[u8])> = names.iter().map(|name| (name.as_str(), &skipped[..])).collect();
    let end = [b"PK\x05\x06".as_slice(), &[0; 18]].concat();
    vec![
        ("zip", "30 million Nones", archive(&[("a/data.pkl", &nones)])),
        ("zip", "one storage as ten types", archive(&[("a/data.pkl", &types), ("a/data/0", &storage)])),
        ("zip", "sixteen pickles of 48 MB", archive(&[&pickles[..], &[("a/data.pkl", &skipped)]].concat())),
        ("zip", "an end of an archive again and again", [b"PK\x03\x04".to_vec(), end.repeat(MB / 23)].concat()),
    ]
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn tables() -> Vec<Bomb> {
    let zeros = gzip(&vec![0; 1 << 20]);
    let labels = |count: u32| [gzip(&[&[0, 0, 8, 1], &count.to_be_bytes()[..]].concat()), zeros.repeat(900)].concat();
    let safe = |header: &str, body: &[u8]| [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), body].concat();
    let dims = vec!["1"; MB / 2 - 100].join(",");
    let names: Vec<String> =
        (0..16_000).map(|n| format!(r#""{n}":{{"dtype":"F32","shape":[0],"data_offsets":[0,0]}}"#)).collect();
    let dotted = format!(r#"{{"{}":{{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}}}"#, "a.".repeat(MB / 2 - 100));
    vec![
        ("idx", "900 million labels", labels(900 << 20)),
        ("idx", "as many labels as are allowed", labels(40 << 20)),
        (
            "safetensors",
            "half a million dimensions",
            safe(&format!(r#"{{"a":{{"dtype":"F32","shape":[{dims}],"data_offsets":[0,4]}}}}"#), &[0; 4]),
        ),
        ("safetensors", "thousands of tensors of nothing", safe(&format!("{{{}}}", names.join(",")), &[])),
        ("safetensors", "a name of half a million parts", safe(&dotted, &[0; 4])),
    ]
}

fn graphs() -> Vec<Bomb> {
    let graph = |nodes: &[String], last: &str| {
        let nodes = nodes.join(",");
        format!(r#"{{"version":1,"nodes":[{nodes}],"outputs":[{{"name":"logits","node":"{last}"}}]}}"#)
    };
    let bundle = |nodes: &[String], last: &str| {
        let graph = graph(nodes, last);
        let rest = r#""loss":{"cross_entropy":{"label_smoothing":0.0}},"aux_weight":0.0,"classes":[],"preprocess":null,"origin":null,"metrics":{}"#;
        format!(r#"{{"version":2,"graph":{graph},{rest}}}"#)
    };
    let input = |dims: &str| format!(r#"{{"name":"x","input":[{dims}]}}"#);
    let node = |name: &str, from: &str, op: &str, options: &str| {
        format!(r#"{{"name":"{name}","from":[{from}],"layer":"{op}","options":{options}}}"#)
    };
    let doubled: Vec<String> = (0..30)
        .map(|n| match n {
            0 => node("0", r#""x","x""#, "Concat", "null"),
            n => node(&n.to_string(), &format!(r#""{0}","{0}""#, n - 1), "Concat", "null"),
        })
        .collect();
    let flat: Vec<String> = (0..12_000).map(|n| node(&n.to_string(), r#""x""#, "Flatten", "null")).collect();
    let wide = node("cat", &vec![r#""x""#; MB / 5].join(","), "Concat", "null");
    let ones = vec!["1"; MB / 4].join(",");
    let few: Vec<String> = flat.iter().take(5000).cloned().collect();
    let table = vec!["[0]"; MB / 5].join(",");
    let sparse = node("s", r#""x""#, "SparseConv2d", &format!(r#"{{"table":[{table}],"kernel_size":[1,1]}}"#));
    let long = "n".repeat(MB / 2);
    let all = |first: String, rest: &[String]| [&[first], rest].concat();
    vec![
        (
            "bundle",
            "maps of a gigabyte",
            bundle(&all(input("3,20000,20000"), &[node("f", r#""x""#, "Flatten", "null")]), "f").into(),
        ),
        ("bundle", "channels that double in every layer", bundle(&all(input("1,64,64"), &doubled), "29").into()),
        ("graph", "channels that double in every layer", graph(&all(input("1,64,64"), &doubled), "29").into()),
        ("graph", "as many layers as fit", graph(&all(input("4"), &flat), "0").into()),
        ("graph", "a layer that reads as many as fit", graph(&all(input("1,1,1"), &[wide]), "cat").into()),
        ("graph", "dimensions that every layer has", graph(&all(input(&ones), &few), "0").into()),
        ("graph", "a sparse table of most zeros", graph(&all(input("100000,1,1"), &[sparse]), "s").into()),
        ("graph", "a name as long as fits", graph(&all(input("4"), &[node(&long, r#""x""#, "Flatten", "null")]), "x").into()),
        ("graph", "nested as deep as it is long", "[".repeat(MB - 1).into()),
    ]
}

fn recipes() -> Vec<Bomb> {
    vec![
        ("recipe", "keys of keys", format!("{}a = 1", "a.".repeat(MB / 2 - 10)).into()),
        ("recipe", "lists in lists", format!("a = {}", "[".repeat(MB - 10)).into()),
        ("recipe", "tables in tables", format!("a = {}", "{a=".repeat(MB / 3 - 10)).into()),
        ("recipe", "sections as many as fit", (0..80_000).map(|n| format!("[a.{n}]\n")).collect::<String>().into()),
        ("recipe", "a key as long as fits", format!("[train]\n{} = 1", "k".repeat(MB - 100)).into()),
    ]
}

/// A PNG of 8 bits with this type of colour.
fn png([width, height]: [u32; 2], bits: u8, colour: u8, more: &[Vec<u8>], rows: &[u8]) -> Vec<u8> {
    let header = [&b"IHDR"[..], &width.to_be_bytes(), &height.to_be_bytes(), &[bits, colour, 0, 0, 0]].concat();
    let chunks = [&[header], more, &[[&b"IDAT"[..], rows].concat(), b"IEND".to_vec()]].concat();
    let mut png = b"\x89PNG\r\n\x1a\n".to_vec();
    for chunk in chunks {
        let mut crc = Crc::new();
        crc.update(&chunk);
        png.extend((chunk.len() as u32 - 4).to_be_bytes());
        png.extend(&chunk);
        png.extend(crc.sum().to_be_bytes());
    }
    png
}

/// At least so many zeros.
fn zlib(zeros: usize) -> Vec<u8> {
    let times = zeros.div_ceil(MIB);
    // Adler's checksum.
    let sum = ((times * MIB % 65_521) as u32) << 16 | 1;
    [&[0x78, 0xda][..], &deflated(&[(&[0; MIB], times)]), &sum.to_be_bytes()].concat()
}

/// The file, made as long as a bomb may be: longer files may have more pixels.
fn padded(mut bytes: Vec<u8>) -> Vec<u8> {
    bytes.resize(MB - 1, 0);
    bytes
}

fn pictures() -> Vec<Bomb> {
    let flat = |width: u32, height: u32, bits: u8, colour: u8, bytes: u32| {
        png([width, height], bits, colour, &[], &zlib(((width * bytes + 1) * height) as usize))
    };
    let profile = [&b"iCCPx\0\0"[..], &zlib(300 << 20)].concat();
    vec![
        ("picture", "89 megapixels of grey", flat(9459, 9459, 8, 0, 1)),
        ("picture", "as much grey as is allowed", padded(flat(5000, 5000, 8, 0, 1))),
        ("picture", "as much RGBA of 16 bits as is allowed", padded(flat(3000, 3000, 16, 6, 8))),
        ("picture", "one row", png([10_000_000, 1], 8, 0, &[], &zlib(10_000_001))),
        ("picture", "one column", padded(flat(1, 10_000_000, 8, 0, 1))),
        ("picture", "a profile of colours of 300 MB", png([1, 1], 8, 0, &[profile], &zlib(2))),
        ("picture", "rows behind the last", png([1, 1], 8, 0, &[], &zlib(300 << 20))),
        (
            "picture",
            "a bitmap that is not there",
            [
                b"BM".as_slice(),
                &[0; 12],
                &40_u32.to_le_bytes(),
                &9000_u32.to_le_bytes(),
                &9000_u32.to_le_bytes(),
                &[1, 0, 24, 0],
                &[0; 24],
            ]
            .concat(),
        ),
        ("picture", "a map of bits that is not there", b"P6 9000 9000 255\n".to_vec()),
        ("picture", "scans as many as fit", progressive([4400, 4400], 1, 15_000)),
        ("picture", "as many coefficients as are allowed", padded(progressive([5000, 5000], 3, 6))),
    ]
}

/// A progressive JPEG of one colour, with so many scans that change nothing.
fn progressive([width, height]: [u16; 2], components: u8, scans: usize) -> Vec<u8> {
    let segment = |marker: u8, content: &[u8]| [&[0xff, marker], &(content.len() as u16 + 2).to_be_bytes()[..], content].concat();
    let blocks = usize::from(width).div_ceil(8) * usize::from(height).div_ceil(8);
    let table = |class: u8, symbol: u8| [&[class, 1][..], &[0; 15], &[symbol]].concat();
    let each = |component: fn(u8) -> Vec<u8>| (1..=components).flat_map(component).collect::<Vec<u8>>();
    let mut jpeg = [&[0xff, 0xd8][..], &segment(0xdb, &[&[0][..], &[1; 64]].concat())].concat();
    let frame = [&[8][..], &height.to_be_bytes(), &width.to_be_bytes(), &[components]].concat();
    jpeg.extend(segment(0xc2, &[frame, each(|number| vec![number, 0x11, 0])].concat()));
    jpeg.extend(segment(0xc4, &table(0, 0)));
    // The only symbol, a single 0, says that 2^14 blocks and as many as the next 14 bits say are empty.
    jpeg.extend(segment(0xc4, &table(0x10, 0xe0)));
    jpeg.extend(segment(0xda, &[&[components][..], &each(|number| vec![number, 0]), &[0, 0, 0]].concat()));
    jpeg.extend(vec![0; (blocks * usize::from(components)).div_ceil(8)]);
    let empty = vec![0; blocks.div_ceil(1 << 14) * 15 / 8 + 1];
    for scan in 0..scans {
        let component = 1 + (scan % usize::from(components)) as u8;
        jpeg.extend(segment(0xda, &[1, component, 0, 1, 63, 0]));
        jpeg.extend(&empty);
    }
    jpeg.extend([0xff, 0xd9]);
    jpeg
}

fn lists() -> Vec<Bomb> {
    let columns = MB / 6;
    let names: String = (0..columns).map(|number| format!(",{number:x}")).collect();
    vec![
        ("csv", "nothing but columns", vec![b','; MB - 1]),
        (
            "csv",
            "a column of 0 for each of many classes",
            format!("file{}\nlist.csv{}\n", &names[..MB / 3], ",0".repeat(MB / 4)).into_bytes(),
        ),
        ("csv", "a picture of many classes", format!("list.csv,{}", "a|b|".repeat(MB / 5)).into_bytes()),
        ("csv", "a line for each two bytes", "a\n".repeat(MB / 2 - 1).into_bytes()),
        ("csv", "a list of nothing that is there", "path,label\n".bytes().chain("a,b\n".repeat(MB / 5).into_bytes()).collect()),
        ("csv", "a quote that is not closed", format!("\"{}", "a,".repeat(MB / 3)).into_bytes()),
    ]
}

/// The header of a member of a tar archive.
fn tar_header(name: &str, size: u64, kind: u8) -> Vec<u8> {
    let mut header = vec![0; 512];
    header[..name.len()].copy_from_slice(name.as_bytes());
    header[100..108].copy_from_slice(b"0000644\0");
    header[124..136].copy_from_slice(format!("{size:011o}\0").as_bytes());
    header[156] = kind;
    header[257..265].copy_from_slice(b"ustar\x0000");
    header[148..156].fill(b' ');
    let sum: u64 = header.iter().map(|byte| u64::from(*byte)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    header
}

fn shards() -> Vec<Bomb> {
    let zeros = vec![0; 1024];
    let member = |name: &str, bytes: &[u8], kind| {
        [tar_header(name, bytes.len() as u64, kind), bytes.to_vec(), vec![0; bytes.len().next_multiple_of(512) - bytes.len()]]
            .concat()
    };
    let nested = format!("{{\"label\": {}", "[".repeat(60_000));
    let record = |text: &str| format!("{} {text}\n", text.len() + 8);
    vec![
        ("shard", "a member of eight gigabytes", [tar_header("1.jpg", 8_000_000_000, b'0'), zeros.clone()].concat()),
        ("shard", "a name of eight gigabytes", [tar_header("L", 8_000_000_000, b'L'), zeros.clone()].concat()),
        ("shard", "an attribute of eight gigabytes", [tar_header("x", 8_000_000_000, b'x'), zeros.clone()].concat()),
        ("shard", "nothing but empty pictures", [tar_header("1.jpg", 0, b'0').repeat(MB / 512 - 4), zeros.clone()].concat()),
        ("shard", "a long name", [member("L", &vec![b'a'; MB / 2], b'L'), tar_header("1.jpg", 0, b'0'), zeros.clone()].concat()),
        (
            "shard",
            "an attribute that says that a picture is larger",
            [member("x", record("size=9000000000000").as_bytes(), b'x'), tar_header("1.jpg", 0, b'0'), zeros.clone()].concat(),
        ),
        ("shard", "a label that is nested deeply", [member("1.json", nested.as_bytes(), b'0'), zeros.clone()].concat()),
        ("shard", "a label of a gigabyte", [tar_header("1.cls", 1 << 30, b'0'), zeros].concat()),
    ]
}
