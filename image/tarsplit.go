package image

import (
	"encoding/json"
	"hash/crc64"
	"io"
	"path"

	"github.com/vbatts/tar-split/tar/storage"
)

// splitter reads a layer's tar stream and writes down what the files it holds do not say: headers, padding and order,
// byte by byte, in tar-split's format (github.com/vbatts/tar-split). With it and the files the store makes the very
// same stream again, and so the same diff id. What it writes is what tar-split's own asm package would; doing it in the
// same pass saves a second parser, a pipe and a copy of every byte.
type splitter struct {
	src io.Reader
	enc *json.Encoder
	pos int   // of the next entry
	err error // first failure to write an entry

	record bool // bytes go to segment: they are headers or padding
	seg    []byte
	seen   map[string]bool
}

// segmentSize bounds the raw bytes in one entry: headers are far smaller, but what follows a tar's end may be anything.
const segmentSize = 1 << 20

func newSplitter(src io.Reader, out io.Writer) *splitter {
	return &splitter{src: src, enc: json.NewEncoder(out), record: true, seen: map[string]bool{}}
}

// Read implements io.Reader for the tar parser.
func (s *splitter) Read(p []byte) (int, error) {
	n, err := s.src.Read(p)
	if s.record && n > 0 {
		s.seg = append(s.seg, p[:n]...)
		if len(s.seg) >= segmentSize {
			s.flush()
		}
	}
	if s.err != nil {
		return n, s.err
	}
	return n, err
}

func (s *splitter) flush() {
	if len(s.seg) == 0 {
		return
	}
	s.add(storage.Entry{Type: storage.SegmentType, Payload: s.seg})
	s.seg = s.seg[:0]
}

func (s *splitter) add(e storage.Entry) {
	if s.err != nil {
		return
	}
	e.Position = s.pos
	s.pos++
	s.err = s.enc.Encode(e)
}

// file passes the content of a regular file, which the tar parser reads from s, to write, and notes its size and
// checksum in place of the bytes. What is not kept in a file of that name and length (sparse entries, names that come
// twice, and whatever is skipped) must not go through here: its bytes are then kept whole.
func (s *splitter) file(name string, size int64, content io.Reader, write func(io.Reader) error) error {
	clean := path.Clean(name)
	if size == 0 || s.seen[clean] { // the format allows each name once
		return write(content)
	}
	s.seen[clean] = true
	s.flush()
	s.record = false
	sum := crc64.New(storage.CRCTable)
	err := write(io.TeeReader(content, sum))
	s.record = true
	if err != nil {
		return err
	}
	e := storage.Entry{Type: storage.FileType, Size: size, Payload: sum.Sum(nil)}
	e.SetName(name)
	s.add(e)
	return s.err
}

// end reads what follows the archive's end, which the diff id covers, too.
func (s *splitter) end() error {
	buf := make([]byte, 32<<10)
	for {
		_, err := s.Read(buf)
		if err == io.EOF {
			break
		}
		if err != nil {
			return err
		}
	}
	s.flush()
	return s.err
}
