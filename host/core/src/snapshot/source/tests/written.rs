//! Files of this program: the disk under them is not believed.

use super::*;

#[tokio::test]
async fn what_this_program_wrote_is_compared_when_it_is_read() {
    for len in [1, SEGMENT, 2 * SEGMENT + 5] {
        let bytes = pattern(len);
        let own = |on_disk: &[u8]| {
            let file = file_with(on_disk).reopen().unwrap();
            FileSource::own(file, "spool", Some(expected(&bytes).id())).unwrap()
        };
        let sound = own(&bytes);
        let (read, error) = drain(sound.read(None).0).await;
        assert!(read == bytes && error.is_none() && !sound.is_damaged());
        let mut other = bytes.clone();
        other[len / 2] ^= 1;
        let damaged = own(&other);
        let (body, reading) = damaged.read(None);
        let (read, error) = drain(body).await;
        assert!(read.len() < len, "all of it is given before it is compared");
        assert_eq!(*error.unwrap().kind(), ErrorKind::Conflict);
        assert_eq!(*reading.identity().await.unwrap_err().kind(), ErrorKind::Conflict);
        assert!(damaged.is_damaged());
        assert_eq!(*own(&other).identify(None).await.unwrap_err().kind(), ErrorKind::Conflict);
        // Of bytes that hold something else, the same is asked.
        let holds = Arc::new(expected(b"held"));
        let (body, reading) = own(&other).read(None);
        drain(body).await;
        assert!(reading.holding(holds.clone()).identity().await.is_err());
        let (body, reading) = own(&bytes).read(None);
        drain(body).await;
        assert_eq!(reading.holding(holds.clone()).identity().await.unwrap(), *holds);
    }
}
