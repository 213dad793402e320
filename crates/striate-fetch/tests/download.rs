//! Downloads from a server on this machine that misbehaves in the ways that servers do.
#![allow(clippy::unwrap_used)]

mod server;

use std::{
    fs,
    net::TcpListener,
    path::{Path, PathBuf},
};

use server::{Behaviour, GOOD, Server, etag};
use striate_fetch::{Download, FetchError, sha256_reader};
use tempfile::TempDir;

/// 200,000 bytes, no two stretches of which are alike.
fn content() -> Vec<u8> {
    (0..50_000_u32).flat_map(|i| i.wrapping_mul(2_654_435_761).to_le_bytes()).collect()
}

/// A folder for one download, the content that it should have, and that content's checksum.
fn setting() -> (TempDir, PathBuf, Vec<u8>, String) {
    let folder = tempfile::tempdir().unwrap();
    let dest = folder.path().join("deep/file.bin");
    let content = content();
    let sum = sha256_reader(&content[..]).unwrap();
    (folder, dest, content, sum)
}

fn write_part(dest: &Path, bytes: &[u8]) {
    fs::create_dir_all(dest.parent().unwrap()).unwrap();
    fs::write(dest.with_extension("bin.part"), bytes).unwrap();
}

#[test]
fn downloads_a_whole_file_once() {
    let (_folder, dest, content, sum) = setting();
    let server = Server::start(content.clone(), GOOD);
    let mut seen = Vec::new();
    let download = Download::new([&server.url], &dest).sha256(sum).size(200_000);
    download
        .fetch(&mut |done, total| {
            seen.push((done, total));
            true
        })
        .unwrap();
    download.fetch(&mut |_, _| unreachable!("the file is there")).unwrap();

    assert_eq!(fs::read(&dest).unwrap(), content);
    assert!(seen.contains(&(0, Some(200_000))), "{seen:?}");
    assert_eq!(seen.last(), Some(&(200_000, Some(200_000))));
    assert_eq!(fs::read_dir(dest.parent().unwrap()).unwrap().count(), 1, "nothing but the file is left");
}

#[test]
fn goes_on_with_a_part_file() {
    let (_folder, dest, content, sum) = setting();
    write_part(&dest, &content[..70_000]);
    let server = Server::start(content.clone(), GOOD);
    Download::new([&server.url], &dest).sha256(sum).fetch(&mut |_, _| true).unwrap();
    assert_eq!(fs::read(&dest).unwrap(), content);
    assert_eq!(server.ranges_asked(), [Some("bytes=70000-".to_owned())]);
}

#[test]
fn a_whole_part_file_needs_no_more_bytes() {
    let (_folder, dest, content, sum) = setting();
    write_part(&dest, &content);
    let server = Server::start(content.clone(), GOOD);
    Download::new([&server.url], &dest).sha256(sum).fetch(&mut |_, _| true).unwrap();
    assert_eq!(fs::read(&dest).unwrap(), content);
}

#[test]
fn starts_over_when_the_server_ignores_ranges() {
    let (_folder, dest, content, sum) = setting();
    write_part(&dest, &content[..70_000]);
    let server = Server::start(content.clone(), Behaviour { ranges: false, ..GOOD });
    Download::new([&server.url], &dest).sha256(sum).fetch(&mut |_, _| true).unwrap();
    assert_eq!(fs::read(&dest).unwrap(), content);
}

#[test]
fn starts_over_when_the_part_file_is_of_another_file() {
    let (_folder, dest, content, sum) = setting();
    write_part(&dest, &[7; 70_000]);
    let server = Server::start(content.clone(), GOOD);
    Download::new([&server.url], &dest).sha256(sum).fetch(&mut |_, _| true).unwrap();
    assert_eq!(fs::read(&dest).unwrap(), content);
    assert_eq!(server.ranges_asked(), [Some("bytes=70000-".to_owned()), None]);
}

#[test]
fn without_a_checksum_only_the_etag_allows_to_go_on() {
    let asked = Some("bytes=70000-".to_owned());
    // What is there, the ETag under which it came, and the range that is asked for.
    let good = content()[..70_000].to_vec();
    let cases = [
        (good, Some(etag(&content())), asked.clone()),
        (vec![7; 70_000], Some(etag(&[7])), asked),
        (vec![7; 70_000], None, None),
    ];
    for (part, etag, range) in cases {
        let (_folder, dest, content, _sum) = setting();
        write_part(&dest, &part);
        if let Some(etag) = etag {
            fs::write(dest.with_extension("bin.part.etag"), etag).unwrap();
        }
        let server = Server::start(content.clone(), GOOD);
        let mut first = None;
        Download::new([&server.url], &dest)
            .fetch(&mut |done, total| {
                first = first.or(total.map(|_| done));
                true
            })
            .unwrap();
        assert_eq!(fs::read(&dest).unwrap(), content);
        assert_eq!(server.ranges_asked(), [range]);
        assert_eq!(first, Some(if part[0] == content[0] { 70_000 } else { 0 }));
    }
}

#[test]
fn a_body_that_breaks_off_is_gone_on_with() {
    let (_folder, dest, content, sum) = setting();
    let server = Server::start(content.clone(), Behaviour { cut_after: Some(90_000), ..GOOD });
    Download::new([&server.url], &dest).sha256(sum).fetch(&mut |_, _| true).unwrap();
    assert_eq!(fs::read(&dest).unwrap(), content);
    assert_eq!(server.ranges_asked(), [None, Some("bytes=90000-".to_owned()), Some("bytes=180000-".to_owned())]);
}

#[test]
fn a_connection_that_always_breaks_keeps_what_came() {
    let (_folder, dest, content, sum) = setting();
    let server = Server::start(content.clone(), Behaviour { cut_after: Some(10_000), ..GOOD });
    let error = Download::new([&server.url], &dest).sha256(sum).fetch(&mut |_, _| true).unwrap_err();
    assert!(matches!(error, FetchError::CutOff { done: 50_000, .. }), "{error}");
    assert_eq!(fs::read(dest.with_extension("bin.part")).unwrap(), content[..50_000]);
}

#[test]
fn a_wrong_checksum_or_size_leaves_nothing() {
    let (_folder, dest, content, sum) = setting();
    let server = Server::start(content, GOOD);
    let wrong = "0".repeat(64);
    let error = Download::new([&server.url], &dest).sha256(&wrong).fetch(&mut |_, _| true).unwrap_err();
    let expected =
        format!("{} has SHA-256 {sum} where {wrong} is expected: the file was removed, try another mirror", server.url);
    assert_eq!(error.to_string(), expected);
    let error = Download::new([&server.url], &dest).size(5).fetch(&mut |_, _| true).unwrap_err();
    assert!(matches!(error, FetchError::WrongSize { expected: 5, actual: 200_000, .. }), "{error}");
    assert_eq!(fs::read_dir(dest.parent().unwrap()).unwrap().count(), 0);
}

#[test]
fn the_next_mirror_is_tried_and_each_failure_is_told() {
    let (_folder, dest, content, sum) = setting();
    let missing = Server::start(Vec::new(), Behaviour { status: Some(404), ..GOOD });
    // A port that was free a moment ago, so that the connection is refused.
    let refused = format!("http://{}/file.bin", TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap());

    let error = Download::new([&refused, &missing.url], &dest).fetch(&mut |_, _| true).unwrap_err().to_string();
    assert!(error.starts_with(&format!("no mirror gave file.bin: cannot reach {refused}: Connection refused")), "{error}");
    assert!(error.contains(&format!("; {} answers with HTTP status 404; check the network", missing.url)), "{error}");
    assert_eq!(error.lines().count(), 1);

    let good = Server::start(content.clone(), GOOD);
    Download::new([&refused, &missing.url, &good.url], &dest).sha256(sum).fetch(&mut |_, _| true).unwrap();
    assert_eq!(fs::read(&dest).unwrap(), content);
}

#[test]
fn a_disk_that_cannot_be_written_is_named_and_no_mirror_blamed() {
    let (_folder, dest, content, _sum) = setting();
    let part = dest.with_extension("bin.part");
    fs::create_dir_all(&part).unwrap();
    let server = Server::start(content, GOOD);
    let error = Download::new([&server.url, &server.url], &dest).fetch(&mut |_, _| true).unwrap_err();
    assert!(matches!(&error, FetchError::Io { path, .. } if *path == part), "{error}");
    assert_eq!(server.ranges_asked().len(), 1);
    let full = FetchError::io("write", &part, std::io::ErrorKind::StorageFull.into());
    assert!(matches!(&full, FetchError::DiskFull { path } if *path == part) && full.is_local());
}

#[test]
fn what_lies_at_the_part_files_name_is_not_written_through() {
    let (_folder, dest, content, _sum) = setting();
    let victim = dest.with_extension("victim");
    fs::create_dir_all(dest.parent().unwrap()).unwrap();
    fs::write(&victim, "precious").unwrap();
    std::os::unix::fs::symlink(&victim, dest.with_extension("bin.part")).unwrap();
    let server = Server::start(content.clone(), GOOD);
    Download::new([&server.url], &dest).fetch(&mut |_, _| true).unwrap();
    assert_eq!((fs::read(&dest).unwrap(), fs::read_to_string(&victim).unwrap()), (content, "precious".to_owned()));
}

#[test]
fn a_download_from_a_silent_server_can_be_stopped() {
    let (_folder, dest, ..) = setting();
    // It takes the connection and never answers.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    let mut asked = 0;
    let error = Download::new([url], &dest)
        .fetch(&mut |_, _| {
            asked += 1;
            asked < 3
        })
        .unwrap_err();
    assert!(matches!(error, FetchError::Stopped), "{error}");
    assert_eq!(asked, 3);
    assert_eq!(fs::read_dir(dest.parent().unwrap()).unwrap().count(), 0);
}
