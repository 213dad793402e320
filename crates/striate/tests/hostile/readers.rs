//! The readers of files from others, each as a function of a file's bytes. The fuzz targets have the same ones.
#![allow(unreachable_pub, reason = "the fuzz targets are another crate")]

use flate2::{Compression, write::GzEncoder};
use std::cell::LazyCell;
use std::io::Write;
use std::path::Path;
use striate_datasets::{
    DecodeOptions, FolderParts, ImageSize, Interpolation, LoadOptions, Normalise, Preprocess, decode_image,
    idx::{read_images, read_labels},
    load, unpack_archive,
};
use striate_graph::{Graph, GraphDescription, InitOptions, Network};
use striate_layers::CustomLayers;
use striate_models::{BundleInfo, Weights, find};
use striate_train::Recipe;
use tempfile::TempDir;

/// Reads a file of these bytes, or refuses it.
pub type Reader = fn(&[u8]);

/// Every reader, by the name of its folder in `fuzz/corpus`.
#[allow(dead_code, reason = "the fuzz targets name their own")]
pub const READERS: [(&str, Reader); 15] = [
    ("pickle", pickle),
    ("zip", zip),
    ("safetensors", safetensors),
    ("bundle", bundle),
    ("graph", graph),
    ("idx", idx),
    ("cifar", cifar),
    ("stl", stl),
    ("mat", mat),
    ("lists", lists),
    ("picture", picture),
    ("recipe", recipe),
    ("csv", csv),
    ("shard", shard),
    ("unpack", unpack),
];

/// A file of these bytes.
fn with_file<T>(bytes: &[u8], read: impl FnOnce(&Path) -> T) -> Option<T> {
    with_file_named("file", bytes, read)
}

/// The same, of this name.
fn with_file_named<T>(name: &str, bytes: &[u8], read: impl FnOnce(&Path) -> T) -> Option<T> {
    thread_local! {
        static FOLDER: LazyCell<Option<TempDir>> = LazyCell::new(|| tempfile::tempdir().ok());
    }
    FOLDER.with(|folder| {
        let path = folder.as_ref()?.path().join(name);
        std::fs::write(&path, bytes).ok()?;
        Some(read(&path))
    })
}

/// What `torch.save` wrote before PyTorch 1.6.
pub fn pickle(bytes: &[u8]) {
    with_file(bytes, |path| _ = Weights::read(path));
}

/// What `torch.save` writes since.
pub fn zip(bytes: &[u8]) {
    pickle(bytes);
}

/// A file of weights, and these in a network.
pub fn safetensors(bytes: &[u8]) {
    thread_local! {
        static NETWORK: LazyCell<Option<Network>> = LazyCell::new(|| {
            let graph = find("lenet5").ok()?.model(&[]).ok()?.graph().ok()?;
            Network::new(graph, &InitOptions::default()).ok()
        });
    }
    let weights = with_file(bytes, Weights::read);
    if let Some(Ok(weights)) = weights {
        NETWORK.with(|network| network.as_ref().map(|network| weights.load(network).is_ok()));
    }
}

/// A bundle without weights whose description these bytes are.
pub fn bundle(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let header = serde_json::json!({ "__metadata__": { "striate": text } }).to_string();
    let file = [&(header.len() as u64).to_le_bytes()[..], header.as_bytes()].concat();
    if let Some(Ok(info)) = with_file(&file, BundleInfo::read) {
        describe(&info.graph);
    }
}

/// The description of a network.
pub fn graph(bytes: &[u8]) {
    let Ok(description) = serde_json::from_slice::<GraphDescription>(bytes) else { return };
    if let Ok(graph) = Graph::from_description(description, &CustomLayers::default()) {
        describe(&graph);
    }
}

/// What commands print of a network.
fn describe(graph: &Graph) {
    let _ = (graph.cost(), graph.summary().to_string(), graph.to_svg(), graph.to_description().is_ok());
}

/// The files of the MNIST family.
pub fn idx(bytes: &[u8]) {
    with_file(bytes, |path| (read_images(path).is_ok(), read_labels(path).is_ok()));
}

/// A dataset of the catalogue whose files are these.
fn dataset(name: &str, files: &[(&str, &[u8])]) {
    thread_local! {
        static FOLDER: LazyCell<Option<TempDir>> = LazyCell::new(|| tempfile::tempdir().ok());
    }
    FOLDER.with(|folder| {
        let root = folder.as_ref()?.path().join(name);
        for (file, bytes) in files {
            let path = root.join(file);
            std::fs::create_dir_all(path.parent()?).ok()?;
            std::fs::write(path, bytes).ok()?;
        }
        Some(load(name, &LoadOptions { root: Some(root), ..LoadOptions::default() }).is_ok())
    });
}

/// CIFAR's binary files.
pub fn cifar(bytes: &[u8]) {
    dataset("cifar-100", &[("train.bin", bytes), ("test.bin", bytes)]);
}

/// STL-10's binary files; the first byte is the label.
pub fn stl(bytes: &[u8]) {
    let (label, pictures) = bytes.split_at(bytes.len().min(1));
    let files = [("train_X.bin", pictures), ("train_y.bin", label), ("test_X.bin", pictures), ("test_y.bin", label)];
    dataset("stl-10", &files);
}

/// MATLAB's files, as SVHN has them.
pub fn mat(bytes: &[u8]) {
    dataset("svhn", &[("train_32x32.mat", bytes), ("test_32x32.mat", bytes)]);
}

/// Lists of pictures: Food-101's and ImageNet's.
pub fn lists(bytes: &[u8]) {
    dataset("food-101", &[("meta/train.txt", bytes), ("meta/test.txt", bytes)]);
    dataset("imagenet", &[("val/a.JPEG", b""), ("val/b.JPEG", b""), ("val.txt", bytes)]);
}

/// Pictures of all formats.
pub fn picture(bytes: &[u8]) {
    let image = ImageSize::ShorterSide { shorter_side: 12 };
    let preprocess =
        Preprocess { image, input: [3, 8, 8], normalise: Normalise::identity(), interpolation: Interpolation::Bilinear };
    let _ = decode_image(bytes, &preprocess, &DecodeOptions::default());
}

/// A recipe.
pub fn recipe(bytes: &[u8]) {
    if let Ok(text) = std::str::from_utf8(bytes) {
        let _ = Recipe::parse(text, Path::new("recipe.toml")).map(|recipe| recipe.to_toml());
    }
}

/// A list of pictures, of which one is there: the list itself.
pub fn csv(bytes: &[u8]) {
    for name in ["list.csv", "list.tsv"] {
        source(name, bytes);
    }
}

/// A shard, and the bytes of its pictures.
pub fn shard(bytes: &[u8]) {
    source("shard.tar", bytes);
}

/// A source of pictures, whose bad parts are refused and then counted.
fn source(name: &str, bytes: &[u8]) {
    let open = |path: &Path, skip_bad| FolderParts::open_with(path, skip_bad, &mut |_, _, _| true);
    with_file_named(name, bytes, |path| {
        let _ = open(path, false).map_err(|error| error.to_string());
        if let Ok(parts) = open(path, true) {
            for part in parts.iter() {
                let _ = (part.left_out().to_string(), part.files().iter().filter(|file| file.read().is_ok()).count());
            }
        }
    });
}

/// Archives of datasets: a zip archive, and a tar archive that is compressed here, since few changes to compressed bytes get far.
pub fn unpack(bytes: &[u8]) {
    let mut gzip = GzEncoder::new(Vec::new(), Compression::none());
    let Ok(gzip) = gzip.write_all(bytes).and_then(|()| gzip.finish()) else { return };
    for (name, bytes) in [("archive.zip", bytes), ("archive.tgz", &gzip)] {
        with_file_named(name, bytes, |path| {
            let dest = path.with_extension("unpacked");
            let is_whole = unpack_archive(path, &dest).is_ok();
            assert_eq!(dest.exists(), is_whole, "a folder is whole or absent");
            let _ = std::fs::remove_dir_all(dest);
        });
    }
}
