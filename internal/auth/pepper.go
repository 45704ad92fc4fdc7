package auth

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"slices"
	"sync"
)

const (
	// minPepper is the least length of a pepper, in bytes: shorter ones can be guessed.
	minPepper = 16
	// maxPeppers bounds how many there may be.
	maxPeppers = 250
)

// Peppers are the secrets without which digests of keys are worthless to whoever has stolen them. They have versions, because a pepper can only
// be exchanged key by key: what was digested under the old one stays so.
//
// The zero value has none. Peppers do not print.
type Peppers struct{ byVersion []*pepper } // of version 1 first

// pepper is one of them, with what is made from it.
type pepper struct {
	hashers sync.Pool // of *hasher
	seal    cipher.AEAD
	file    []byte // the key of what keeps the snapshot on disk from being changed
	mark    uint32 // by which keys know it again, never 0
}

// hasher is an HMAC with memory for what goes in and comes out: all of it would be allocated anew, as it crosses an interface.
type hasher struct {
	hash.Hash

	in  []byte
	out Digest
}

// NewPeppers takes the secrets as a configuration lists them: the newest first. A version is counted from the end, so that a new pepper goes in
// front and all others keep their versions. Its errors do not hold a secret.
func NewPeppers(newestFirst ...string) (Peppers, error) {
	var p Peppers
	if len(newestFirst) > maxPeppers {
		return p, fmt.Errorf("there are %d peppers, and at most %d may be", len(newestFirst), maxPeppers)
	}
	for i, text := range slices.Backward(newestFirst) {
		if len(text) < minPepper {
			return Peppers{}, fmt.Errorf("pepper %d is shorter than %d bytes: make a new one, as with openssl rand -hex 32", i+1, minPepper)
		}
		if slices.Index(newestFirst, text) != i {
			return Peppers{}, fmt.Errorf("pepper %d is there twice", i+1)
		}
		made, err := newPepper(text)
		if err != nil {
			return Peppers{}, err
		}
		p.byVersion = append(p.byVersion, made)
	}
	return p, nil
}

func newPepper(text string) (*pepper, error) {
	secret := []byte(text)
	p := &pepper{}
	p.hashers.New = func() any { return &hasher{Hash: hmac.New(sha256.New, secret), in: make([]byte, 0, 64)} }
	derive := func(what string) ([]byte, error) {
		return hkdf.Key(sha256.New, secret, nil, "api-router "+what, sha256.Size)
	}
	sealing, err := derive("sealed signing secrets, version 1")
	if err != nil {
		return nil, err
	}
	block, err := aes.NewCipher(sealing)
	if err != nil {
		return nil, err
	}
	if p.seal, err = cipher.NewGCM(block); err != nil {
		return nil, err
	}
	if p.file, err = derive("snapshot of keys, version 1"); err != nil {
		return nil, err
	}
	mark, err := derive("mark of the pepper, version 1")
	if err != nil {
		return nil, err
	}
	p.mark = max(binary.BigEndian.Uint32(mark), 1) // So little of it helps nobody to guess a pepper.
	return p, nil
}

// String says how many there are.
func (p Peppers) String() string {
	if len(p.byVersion) == 1 {
		return "1 pepper"
	}
	return fmt.Sprintf("%d peppers", len(p.byVersion))
}

// GoString is String: %#v would walk into the secrets.
func (p Peppers) GoString() string { return p.String() }

// Live is the version under which new keys are digested; 0 where there is no pepper.
func (p Peppers) Live() int { return len(p.byVersion) }

func (p Peppers) version(v int) *pepper {
	if v < 1 || v > len(p.byVersion) {
		return nil
	}
	return p.byVersion[v-1]
}

var (
	// errPepper says that something was made under a pepper that is not there.
	errPepper = errors.New("the pepper of this version is not among identity.peppers")
	// errOtherPepper says that there is another one in its place.
	errOtherPepper = errors.New("it was made under another pepper than identity.peppers has as this version: put that one back in its place, as the other replicas have it")
)

// Digest is HMAC-SHA256 of a credential under the pepper of a version. Version 0 is plain SHA-256.
func (p Peppers) Digest(version int, credential string) (Digest, error) {
	if version == 0 {
		return Fingerprint(credential), nil
	}
	at := p.version(version)
	if at == nil {
		return Digest{}, fmt.Errorf("version %d: %w", version, errPepper)
	}
	h := at.hash(credential)
	defer at.hashers.Put(h)
	return h.out, nil
}

// hash digests a credential. Whoever calls it puts the hasher back.
func (p *pepper) hash(credential string) *hasher {
	h := p.hashers.Get().(*hasher) //nolint:forcetypeassert // The pool holds nothing else.
	h.Reset()
	h.in = append(h.in[:0], credential...)
	_, _ = h.Write(h.in) // A hash never fails.
	h.Sum(h.out[:0])
	clear(h.in)
	return h
}

// matches reports whether want is the digest of credential. How long it takes tells nothing of either.
func (p *pepper) matches(credential string, want *Digest) bool {
	h := p.hash(credential)
	same := subtle.ConstantTimeCompare(h.out[:], want[:]) == 1
	p.hashers.Put(h)
	return same
}

// sealHead is what stands before the nonce of a sealed secret: the form, which is 1, and the pepper's version in two bytes.
const sealHead = 3

// Seal encrypts a signing secret for the key of that id, by AES-256-GCM under a key derived from the live pepper by HKDF-SHA256. What is
// sealed for one key does not open for another.
func (p Peppers) Seal(id string, secret Secret) ([]byte, error) {
	at := p.version(p.Live())
	if at == nil {
		return nil, errPepper
	}
	sealed := make([]byte, sealHead+at.seal.NonceSize(), sealHead+at.seal.NonceSize()+len(secret.text)+at.seal.Overhead())
	sealed[0] = 1
	binary.BigEndian.PutUint16(sealed[1:], uint16(p.Live()))
	nonce := sealed[sealHead:]
	_, _ = rand.Read(nonce)                                                  // It never fails.
	return at.seal.Seal(sealed, nonce, []byte(secret.text), []byte(id)), nil //nolint:gosec // The nonce is random: see above.
}

// Unseal is the reverse of Seal.
func (p Peppers) Unseal(id string, sealed []byte) (Secret, error) {
	if len(sealed) < sealHead || sealed[0] != 1 {
		return Secret{}, errors.New("a sealed signing secret has no known form")
	}
	version := int(binary.BigEndian.Uint16(sealed[1:]))
	at := p.version(version)
	if at == nil {
		return Secret{}, fmt.Errorf("version %d: %w", version, errPepper)
	}
	rest := sealed[sealHead:]
	if len(rest) < at.seal.NonceSize() {
		return Secret{}, errors.New("a sealed signing secret is cut short")
	}
	plain, err := at.seal.Open(nil, rest[:at.seal.NonceSize()], rest[at.seal.NonceSize():], []byte(id))
	if err != nil {
		return Secret{}, errors.New("a sealed signing secret does not open: it is not of this key, or was changed")
	}
	return Secret{string(plain)}, nil
}

// Make makes the key k anew: its id, digest and pepper, and where its scopes ask for signatures the sealed secret. What is returned is shown
// once; the second is the zero value where nothing is signed.
func (p Peppers) Make(k *Key) (key, signing Secret, err error) {
	key = NewKey()
	k.ID, k.Pepper = key.ID(), p.Live()
	if k.Pepper == 0 {
		return Secret{}, Secret{}, errors.New("keys need a pepper: set identity.peppers")
	}
	k.PepperMark = p.version(k.Pepper).mark
	if k.Digest, err = p.Digest(k.Pepper, key.text); err != nil {
		return Secret{}, Secret{}, err
	}
	k.Sealed = nil
	if k.Scopes.Signature != "" {
		signing = NewSigningSecret()
		if k.Sealed, err = p.Seal(k.ID, signing); err != nil {
			return Secret{}, Secret{}, err
		}
	}
	return key, signing, nil
}
