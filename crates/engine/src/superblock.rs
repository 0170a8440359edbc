use crate::{id::*, disk::{Disk, read_file, replace_file}, error::{Error,Result}, keys::Protection, chunker::Params, codec::*};
pub const FILE: &str = "pool.superblock";
#[derive(Clone, Debug)]
pub struct Superblock { pub generation: u64, pub pool: PoolId, pub created: i64, pub disk: DiskId, pub disks: Vec<DiskId>, pub data_shards: u8, pub parity_shards: u8, pub chunking: Params, pub compression_level: i32, pub pack_size: u32, pub protection: Protection }
impl Superblock {
  pub fn new(pool: PoolId, created: i64, disks: Vec<DiskId>, (data_shards, parity_shards): (u8,u8), chunking: Params, compression_level: i32, pack_size: u32, protection: Protection) -> Result<Self> { Ok(Self{generation:1,pool,created,disk:disks[0],disks,data_shards,parity_shards,chunking,compression_level,pack_size,protection}) }
  pub fn exists(d: &dyn Disk) -> bool { read_file(d, FILE, 100000).is_ok() }
  pub fn for_disk(&self, place: usize) -> Self { Self{disk:self.disks[place],..self.clone()} }
  pub fn write(&self, d: &dyn Disk) -> Result<()> { let mut w=Writer::new(); w.uint(self.generation); w.raw(&self.pool.0); w.int(self.created); w.raw(&self.disk.0); w.uint(self.disks.len() as u64); for d in &self.disks { w.raw(&d.0);} w.byte(self.data_shards); w.byte(self.parity_shards); w.int(self.compression_level as i64); w.uint(self.pack_size as u64); self.protection.encode(&mut w); replace_file(d, FILE, &w.finish()).map_err(|e| Error::io("sb",e)) }
  pub fn read(d: &dyn Disk) -> Result<Self> { let b=read_file(d, FILE, 100000).map_err(|e| Error::io("sb",e))?; Self::dec(&b).map_err(Error::decoding("sb")) }
  fn dec(b:&[u8]) -> std::result::Result<Self,DecodeError> { let mut r=Reader::new(b); let generation=r.uint()?; let pool=PoolId(r.array()?); let created=r.int()?; let disk=DiskId(r.array()?); let n=r.uint()?; let disks=(0..n).map(|_| Ok(DiskId(r.array()?))).collect::<std::result::Result<_,DecodeError>>()?; let data_shards=r.byte()?; let parity_shards=r.byte()?; let compression_level=r.int()? as i32; let pack_size=r.uint()? as u32; Ok(Self{generation,pool,created,disk,disks,data_shards,parity_shards,chunking:Params::default(),compression_level,pack_size,protection:Protection::decode(&mut r)?}) }
  pub fn newest(r: &[Result<Self>]) -> Result<&Self> { r.iter().flatten().max_by_key(|s| s.generation).ok_or(Error::NotAPool{path:"x".into(),why:"none".into()}) }
}
