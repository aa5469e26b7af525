// Package id holds the identifiers of Heliograph: users, devices, threads and messages. Each is 16 bytes and is written
// as a UUID (RFC 9562 section 4, lower case), so that the log, Postgres, ClickHouse, the wire and a terminal all show
// the same text.
//
// Non-obvious:
//   - A direct thread's id is derived from its two members (version 8); a group's is a UUIDv7 that its creator's client
//     made. The fold accepts each kind of thread only under its own version, so nobody can occupy a direct thread's id
//     with a group.
//   - A user's id is derived from the phone number and its generation with a keyed hash (version 8), so registration
//     needs no lock.
package id

import (
	"bytes"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"time"
)

// Size is the length of every identifier in bytes.
const Size = 16

// ErrMalformed is returned for text or bytes that are not an identifier in its one canonical form.
var ErrMalformed = errors.New("malformed identifier")

// UserID names a user: one phone number in one generation.
type UserID [Size]byte

// DeviceID names a device of a user.
type DeviceID [Size]byte

// ThreadID names a thread, direct or group.
type ThreadID [Size]byte

// MessageID names a message; it is made by the client (UUIDv7) and stays the same over retries.
type MessageID [Size]byte

// any16 is every identifier of this package.
type any16 interface {
	~[Size]byte
}

// Parse reads the canonical text form (36 characters, lower case).
func Parse[T any16](s string) (T, error) {
	var out T
	if len(s) != 36 || s[8] != '-' || s[13] != '-' || s[18] != '-' || s[23] != '-' {
		return out, fmt.Errorf("%w: %q", ErrMalformed, clip(s))
	}
	for i := range len(s) {
		if s[i] >= 'A' && s[i] <= 'F' {
			return out, fmt.Errorf("%w: %q has upper-case digits", ErrMalformed, s)
		}
	}
	var raw [Size]byte
	src := s[0:8] + s[9:13] + s[14:18] + s[19:23] + s[24:36]
	if _, err := hex.Decode(raw[:], []byte(src)); err != nil {
		return out, fmt.Errorf("%w: %q", ErrMalformed, s)
	}
	return T(raw), nil
}

// From copies 16 bytes into an identifier; any other length is ErrMalformed.
func From[T any16](b []byte) (T, error) {
	var out T
	if len(b) != Size {
		return out, lengthError(len(b))
	}
	return T(b), nil
}

// lengthError is ErrMalformed with the length of bytes that are no identifier. Readers try fields that are mostly
// empty, several for each event: so it is put into words only for whoever looks at it.
type lengthError int

func (n lengthError) Error() string {
	return fmt.Sprintf("%v: %d bytes instead of %d", ErrMalformed, int(n), Size)
}
func (n lengthError) Unwrap() error { return ErrMalformed }

func clip(s string) string {
	if len(s) > 64 {
		return s[:64] + "…"
	}
	return s
}

func format(b [Size]byte) string {
	var out [36]byte
	hex.Encode(out[0:8], b[0:4])
	out[8] = '-'
	hex.Encode(out[9:13], b[4:6])
	out[13] = '-'
	hex.Encode(out[14:18], b[6:8])
	out[18] = '-'
	hex.Encode(out[19:23], b[8:10])
	out[23] = '-'
	hex.Encode(out[24:36], b[10:16])
	return string(out[:])
}

// String returns the canonical text form.
func (u UserID) String() string { return format(u) }

// String returns the canonical text form.
func (d DeviceID) String() string { return format(d) }

// String returns the canonical text form.
func (t ThreadID) String() string { return format(t) }

// String returns the canonical text form.
func (m MessageID) String() string { return format(m) }

// IsZero tells whether the id was never set.
func (u UserID) IsZero() bool { return u == UserID{} }

// IsZero tells whether the id was never set.
func (d DeviceID) IsZero() bool { return d == DeviceID{} }

// IsZero tells whether the id was never set.
func (t ThreadID) IsZero() bool { return t == ThreadID{} }

// IsZero tells whether the id was never set.
func (m MessageID) IsZero() bool { return m == MessageID{} }

// MarshalText implements encoding.TextMarshaler with the canonical form.
func (u UserID) MarshalText() ([]byte, error) { return []byte(u.String()), nil }

// MarshalText implements encoding.TextMarshaler with the canonical form.
func (d DeviceID) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// MarshalText implements encoding.TextMarshaler with the canonical form.
func (t ThreadID) MarshalText() ([]byte, error) { return []byte(t.String()), nil }

// MarshalText implements encoding.TextMarshaler with the canonical form.
func (m MessageID) MarshalText() ([]byte, error) { return []byte(m.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (u *UserID) UnmarshalText(b []byte) (err error) { *u, err = Parse[UserID](string(b)); return err }

// UnmarshalText implements encoding.TextUnmarshaler.
func (d *DeviceID) UnmarshalText(b []byte) (err error) {
	*d, err = Parse[DeviceID](string(b))
	return err
}

// UnmarshalText implements encoding.TextUnmarshaler.
func (t *ThreadID) UnmarshalText(b []byte) (err error) {
	*t, err = Parse[ThreadID](string(b))
	return err
}

// UnmarshalText implements encoding.TextUnmarshaler.
func (m *MessageID) UnmarshalText(b []byte) (err error) {
	*m, err = Parse[MessageID](string(b))
	return err
}

// stamp sets the RFC 9562 version and variant bits.
func stamp(b *[Size]byte, version byte) {
	b[6] = b[6]&0x0f | version<<4
	b[8] = b[8]&0x3f | 0x80
}

// version reads the RFC 9562 version, or 0 when the variant is another.
func version(b [Size]byte) byte {
	if b[8]&0xc0 != 0x80 {
		return 0
	}
	return b[6] >> 4
}

// newV7 makes a UUIDv7 (RFC 9562 section 5.7): 48 bits of Unix milliseconds, then random bits.
func newV7() [Size]byte {
	var b [Size]byte
	_, _ = rand.Read(b[:]) // never fails: crypto/rand ends the process instead
	ms := uint64(time.Now().UnixMilli())
	binary.BigEndian.PutUint16(b[0:2], uint16(ms>>32))
	binary.BigEndian.PutUint32(b[2:6], uint32(ms))
	stamp(&b, 7)
	return b
}

// NewMessage makes a fresh message id (UUIDv7).
func NewMessage() MessageID { return newV7() }

// NewGroup makes a fresh id for a group thread (UUIDv7).
func NewGroup() ThreadID { return newV7() }

// NewDevice makes a fresh device id (UUIDv7).
func NewDevice() DeviceID { return newV7() }

// User (wire 15.2) derives the id of the user who holds a phone number (E.164, as "+4915112345678") in a generation
// (from 1), with the key of the deployment. The same number gives the same id on every edge, so two edges cannot
// register it twice.
func User(key []byte, phone string, generation uint32) UserID {
	sum := phoneMAC(key, "helio/user/1", phone, generation)
	return UserID(sum)
}

// PhoneHash is the keyed hash by which a phone number is looked up; the number itself is in no event and in no view.
func PhoneHash(key []byte, phone string) [Size]byte {
	return phoneMAC(key, "helio/phone/1", phone, 0)
}

func phoneMAC(key []byte, label, phone string, generation uint32) [Size]byte {
	h := hmac.New(sha256.New, key)
	h.Write([]byte(label))
	h.Write([]byte{0})
	h.Write([]byte(phone))
	h.Write(binary.BigEndian.AppendUint32([]byte{0}, generation))
	var out [Size]byte
	copy(out[:], h.Sum(nil))
	stamp(&out, 8)
	return out
}

// DirectThread (wire 15.3) derives the id of the direct thread of two users: SHA-256 over a label and both ids, the
// smaller first. Both sides derive the same, so both can begin it without a race.
func DirectThread(a, b UserID) ThreadID {
	if bytes.Compare(a[:], b[:]) > 0 {
		a, b = b, a
	}
	h := sha256.New()
	h.Write([]byte("helio/direct/1\x00"))
	h.Write(a[:])
	h.Write(b[:])
	var out [Size]byte
	copy(out[:], h.Sum(nil))
	stamp(&out, 8)
	return ThreadID(out)
}

// IsDirect tells by its version whether a thread id can only be a direct thread's.
func (t ThreadID) IsDirect() bool { return version(t) == 8 }

// IsGroup tells by its version whether a thread id can only be a group's.
func (t ThreadID) IsGroup() bool { return version(t) == 7 }

// Valid tells whether a message id is a UUIDv7, the one kind that is accepted (wire 15.1).
func (m MessageID) Valid() bool { return version(m) == 7 }

// Valid tells whether a device id is a UUIDv7, the one kind that is accepted.
func (d DeviceID) Valid() bool { return version(d) == 7 }

// Time returns when a message id was made, by the clock of the client that made it; it means something only for a Valid
// one.
func (m MessageID) Time() time.Time {
	ms := int64(binary.BigEndian.Uint16(m[0:2]))<<32 | int64(binary.BigEndian.Uint32(m[2:6]))
	return time.UnixMilli(ms).UTC()
}
