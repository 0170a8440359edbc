//! What happens to packs on disks that lose or change what they hold.

use super::*;
use crate::error::Error;

#[test]
fn every_flipped_byte_of_a_striped_pack_is_noticed_and_mended() {
    flip_every_byte(2, 1, 5_000);
}

#[test]
fn every_flipped_byte_of_a_mirrored_pack_is_noticed_and_mended() {
    flip_every_byte(1, 1, 3_000);
}

#[test]
fn every_flipped_byte_of_a_single_pack_is_noticed() {
    flip_every_byte(1, 0, 5_000);
}

fn flip_every_byte(data: u8, parity: u8, len: usize) {
    let bench = Bench::new(shape(data, parity), len);
    let before = bench.content();
    let (mut buf, mut unmended) = (AlignedBuf::default(), 0);
    for shard in 0..bench.shape.shards() {
        let (disk, path) = (bench.disk(shard), shard_path(PACK, shard));
        let size = disk.content()[&path].len();
        for place in 0..size {
            disk.edit(&path, |bytes| bytes[place] ^= 1 << (place % 8));
            let right = match bench.set(0).read_verified(0, len, &mut buf) {
                Ok(report) => {
                    assert!(buf[report.range] == bench.bytes, "byte {place} of {shard}");
                    true
                }
                Err(error) => {
                    assert!(matches!(error, Error::Damaged { .. }));
                    false
                }
            };
            assert_eq!(bench.set(0).header().unwrap(), header(bench.shape));
            let report = bench.scrub(true);
            assert!(!report.is_clean(), "byte {place} of shard {shard} was not noticed");
            if report.is_whole() {
                assert!(right);
                assert!(disk.content() == before[disk_of(PACK, shard, bench.disks.len())]);
            } else {
                assert!(!right && parity == 0 && !report.unrecoverable.is_empty());
                unmended += 1;
                bench.put_back(&before);
            }
        }
    }
    // Alone, only a unit and its checksum can't be mended: two units and their two sums.
    assert_eq!(unmended, if parity == 0 { 2 * (4096 + 16) } else { 0 });
}

#[test]
fn files_cut_anywhere_are_mended() {
    for (data, parity, len) in [(2, 1, 9_000), (1, 2, 5_000), (1, 0, 5_000)] {
        let bench = Bench::new(shape(data, parity), len);
        let before = bench.content();
        let mut buf = AlignedBuf::default();
        for shard in 0..bench.shape.shards() {
            let (disk, path) = (bench.disk(shard), shard_path(PACK, shard));
            let size = disk.content()[&path].len();
            for cut in (0..size).step_by(61).chain([size - 1, size + 1, size + 10_000]) {
                disk.edit(&path, |bytes| bytes.resize(cut, 0xee));
                let read = bench.set(0).read_verified(0, len, &mut buf);
                match read {
                    Ok(report) => assert!(buf[report.range] == bench.bytes),
                    Err(error) => assert!(parity == 0, "{error}"),
                }
                if parity > 0 {
                    bench.check(&bench.set(0), 0, len);
                }
                let report = bench.scrub(true);
                assert!(!report.is_clean());
                if report.is_whole() {
                    assert!(bench.content() == before, "cut at {cut}");
                } else {
                    assert!(parity == 0, "cut at {cut}: {report:?}");
                    bench.put_back(&before);
                }
            }
        }
    }
}

#[test]
fn bad_sectors_here_and_there_hide_nothing() {
    for (data, parity) in [(1, 1), (2, 1), (3, 2)] {
        let bench = Bench::new(shape(data, parity), 100_000);
        let pages = bench.geometry().file_len(bench.shape.data() - 1) / PAGE as u64 - 2;
        for shard in 0..bench.shape.shards() {
            // No stripe is hit on more shards than there is parity for.
            let unreadable = (1..=pages)
                .filter(|page| *page as usize % bench.shape.shards() == shard)
                .map(|page| (shard_path(PACK, shard), page))
                .collect();
            bench.disk(shard).0.lock().unwrap().unreadable = unreadable;
        }
        let set = bench.set(0);
        bench.check(&set, 0, bench.bytes.len());
        bench.check(&set, 33_333, 44_444);
        let mut buf = AlignedBuf::default();
        let report = set.read_verified(0, bench.bytes.len(), &mut buf).unwrap();
        assert!(buf[report.range] == bench.bytes && !report.bad.is_empty());
        let report = bench.scrub(false);
        assert!(report.unrecoverable.is_empty() && !report.bad_units.is_empty());
    }
}

#[test]
fn a_shard_that_can_not_be_read_is_only_replaced_by_a_whole_one() {
    let bench = Bench::new(shape(1, 1), 30_000);
    let path = shard_path(PACK, 0);
    let trailer = bench.geometry().trailer_start(0) / PAGE as u64;
    let hide = |hidden: bool| {
        let unreadable = if hidden { vec![(path.clone(), trailer)] } else { Vec::new() };
        bench.disk(0).0.lock().unwrap().unreadable = unreadable;
    };
    let before = bench.content();
    // One unit of the other copy is bad, and this one has it, for all one can know.
    let other = shard_path(PACK, 1);
    bench.disk(1).edit(&other, |bytes| bytes[5000] ^= 1);
    hide(true);
    let report = bench.scrub(true);
    assert!(report.unrecoverable.is_empty() && !report.is_whole());
    let first = 0..4096;
    assert_eq!(report.unreadable, [first]);
    assert!(matches!(
        bench.set(0).read_verified(0, 100, &mut AlignedBuf::default()),
        Err(Error::Io { .. })
    ));
    hide(false);
    assert!(bench.scrub(true).is_whole());
    assert!(bench.content() == before);
    // With the other whole, a place that can't be read is no reason to keep the shard.
    hide(true);
    assert_eq!(bench.scrub(true).mended_shards, [0]);
}

#[test]
fn bad_units_are_healed_in_place() {
    let bench = Bench::new(shape(3, 2), 70_000);
    let before = bench.content();
    for shard in [0, 4] {
        bench.disk(shard).edit(&shard_path(PACK, shard), |bytes| bytes[4096..12_000].fill(0));
    }
    let set = bench.set(0);
    let mut buf = AlignedBuf::default();
    let report = set.read_verified(0, 40_000, &mut buf).unwrap();
    assert!(buf[report.range] == bench.bytes[..40_000]);
    let bad: Vec<_> = report.bad.iter().map(|bad| (bad.shard, bad.unit)).collect();
    assert_eq!(bad, [(0, 0), (4, 0), (0, 1), (4, 1)]);
    let healed = set.heal(&report.bad).unwrap();
    assert_eq!(healed.healed_units, healed.bad_units);
    assert_eq!(healed.bad_units, report.bad);
    assert!(bench.content() == before);
    assert!(set.read_verified(0, 70_000, &mut buf).unwrap().bad.is_empty());
}

#[test]
fn a_replaced_disk_is_filled_again() {
    for (data, parity) in [(1, 1), (2, 1), (4, 2)] {
        let bench = Bench::new(shape(data, parity), 123_456);
        let before = bench.content();
        for shard in 0..bench.shape.shards() {
            bench.disk(shard).0.lock().unwrap().files.clear();
            let seen = bench.scrub(false);
            assert!(!seen.is_clean() && !seen.is_whole() && seen.unrecoverable.is_empty());
            let report = bench.scrub(true);
            assert_eq!(report.mended_shards, [shard]);
            assert!(report.is_whole() && bench.content() == before);
        }
    }
}

#[test]
fn a_shard_of_another_pack_or_pool_is_not_believed() {
    let bench = Bench::new(shape(2, 1), 30_000);
    let other = Bench { bytes: noise(30_000, 99), ..Bench::new(shape(2, 1), 30_000) };
    let before = bench.content();
    let mut foreign = header(bench.shape);
    foreign.salt = [1; 32];
    other.disks.iter().for_each(|disk| disk.0.lock().unwrap().files.clear());
    let mut writer = ShardWriter::create(&as_dyn(&other.disks), foreign, Lanes::default()).unwrap();
    writer.append(&other.bytes).unwrap();
    writer.finish().unwrap().publish().unwrap();
    let path = shard_path(PACK, 1);
    let bytes = other.disk(1).content()[&path].clone();
    bench.disk(1).edit(&path, |place| *place = bytes);
    let mut buf = AlignedBuf::default();
    let report = bench.set(0).read_verified(0, 30_000, &mut buf).unwrap();
    assert!(buf[report.range] == bench.bytes);
    let summary = summarize(&as_dyn(&bench.disks), POOL, PACK).unwrap();
    assert_eq!((summary.header, summary.agreeing), (header(bench.shape), 2));
    assert!(summary.is_complete());
    assert_eq!(summary.flaws[0].flaw, Flaw::Foreign);
    assert_eq!(bench.scrub(true).mended_shards, [1]);
    assert!(bench.content() == before);
    // Asked for as another pool's, nothing of it counts, and nothing is overwritten.
    let strange = scrub_pack(
        &as_dyn(&bench.disks),
        PoolId([9; 16]),
        PACK,
        Some(bench.geometry()),
        true,
        &mut ScrubBuffers::default(),
        &mut |_| Ok(()),
    )
    .unwrap();
    let all = 0..30_000;
    assert_eq!(strange.unrecoverable, [all]);
    assert!(bench.content() == before);
}

#[test]
fn what_was_given_up_is_healed_when_it_comes_back() {
    let bench = Bench::new(shape(2, 2), 40_000);
    let before = bench.content();
    // Shard 0 is gone; of the second stripe two others are bad, so that it can't be known.
    bench.disk(0).0.lock().unwrap().files.clear();
    let good: Vec<Vec<u8>> = (1..3)
        .map(|shard| {
            let mut good = Vec::new();
            bench.disk(shard).edit(&shard_path(PACK, shard), |bytes| {
                good = bytes[8192..12_288].to_vec();
                bytes[8200] ^= 1;
            });
            good
        })
        .collect();
    let report = bench.scrub(true);
    let second = 8192..16_384;
    assert_eq!(report.unrecoverable, [second]);
    assert_eq!(report.mended_shards, [0]);
    assert!(!report.is_whole());
    bench.check(&bench.set(0b1000), 16_384, 20_000);
    let mut buf = AlignedBuf::default();
    assert!(bench.set(0).read_verified(8192, 10, &mut buf).is_err());
    assert_eq!(bench.scrub(true).bad_units.len(), 3);
    // One comes back: with it and the last shard all are known again.
    bench.disk(1).edit(&shard_path(PACK, 1), |bytes| bytes[8192..12_288].copy_from_slice(&good[0]));
    let report = bench.scrub(true);
    assert!(report.is_whole(), "{report:?}");
    assert_eq!(report.healed_units.len(), 2);
    assert!(bench.content() == before);
}

#[test]
fn an_ended_scrub_leaves_nothing_behind() {
    let bench = Bench::new(shape(2, 1), 50_000);
    bench.disk(2).0.lock().unwrap().files.clear();
    let before = bench.content();
    let mut calls = 0;
    let ended = scrub_pack(
        &as_dyn(&bench.disks),
        POOL,
        PACK,
        Some(bench.geometry()),
        true,
        &mut ScrubBuffers::default(),
        &mut |_| {
            calls += 1;
            if calls == 2 { Err(Error::Canceled) } else { Ok(()) }
        },
    );
    assert!(matches!(ended, Err(Error::Canceled)));
    assert!(bench.content() == before);
}
