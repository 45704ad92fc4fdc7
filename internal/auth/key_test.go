package auth_test

import (
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"hash/crc32"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/ai-aas/api-router/internal/auth"
)

const base62 = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"

func TestNewKeysHaveTheirForm(t *testing.T) {
	t.Parallel()
	seen := map[string]bool{}
	for range 1000 {
		key := auth.NewKey()
		text := key.Reveal()
		if len(text) != 50 || text[:3] != "ar_" || text[11] != '_' || key.ID() != text[3:11] {
			t.Fatalf("%d bytes, id %q", len(text), key.ID())
		}
		sum := ""
		for rest := crc32.ChecksumIEEE([]byte(text[:44])); len(sum) < 6; rest /= 62 {
			sum = string(base62[rest%62]) + sum
		}
		if sum != text[44:] {
			t.Fatalf("the checksum is %s, want %s", text[44:], sum)
		}
		if _, err := auth.ParseKey(text); err != nil {
			t.Fatal(err)
		}
		seen[text] = true
	}
	if len(seen) != 1000 {
		t.Errorf("%d keys in 1000 are different", len(seen))
	}
}

func TestDigitsOfKeysAreEquallyLikely(t *testing.T) {
	t.Parallel()
	var counts [256]int
	const keys = 4000
	for range keys {
		for _, c := range []byte(auth.NewKey().Reveal()[12:44]) {
			counts[c]++
		}
	}
	want := float64(keys) * 32 / 62
	for _, c := range []byte(base62) {
		if got := float64(counts[c]); got < want*0.85 || got > want*1.15 { // Seven standard deviations.
			t.Errorf("%c came %v times, want about %v", c, got, want)
		}
	}
}

func TestAnyChangedByteOfAKeyIsNoticed(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		text := []byte(auth.NewKey().Reveal())
		at := rapid.IntRange(0, len(text)-1).Draw(t, "at")
		by := rapid.Byte().Filter(func(b byte) bool { return b != text[at] }).Draw(t, "by")
		text[at] = by
		if _, err := auth.ParseKey(string(text)); err == nil {
			t.Fatalf("byte %d may be %q", at, by)
		}
	})
}

func TestSecretsDoNotPrint(t *testing.T) {
	t.Parallel()
	key, signing := auth.NewKey(), auth.NewSigningSecret()
	p := peppers(t, pepper2, pepper1)
	for _, secret := range []auth.Secret{key, signing, new(auth.Admin).Make()} {
		content, err := json.Marshal(map[string]any{"a": secret, "b": &secret})
		if err != nil {
			t.Fatal(err)
		}
		var log journal
		log.logger().Info("x", "secret", secret, "all", []auth.Secret{secret}, "within", struct{ S auth.Secret }{secret})
		for _, text := range []string{
			fmt.Sprint(secret), fmt.Sprintf("%s %v %+v %#v %q %x %d", secret, secret, secret, secret, secret, secret, secret),
			fmt.Sprintf("%v %+v %#v", struct{ S auth.Secret }{secret}, []auth.Secret{secret}, map[string]auth.Secret{"k": secret}), string(content), log.String(),
		} {
			if strings.Contains(text, secret.Reveal()[12:]) || strings.Contains(text, hex.EncodeToString([]byte(secret.Reveal()))) {
				t.Errorf("a secret is in %s", text)
			}
		}
	}
	if want := "ar_" + key.ID() + "_…"; key.String() != want {
		t.Errorf("the mask is %s, want %s", key, want)
	}
	if text := fmt.Sprintf("%v %+v %#v %s", p, p, p, p); strings.Contains(text, "pepper of this test") || strings.Contains(text, "116 104") {
		t.Errorf("a pepper is in %s", text)
	}
}

func TestFingerprintsAreReadInTheirForms(t *testing.T) {
	t.Parallel()
	want := auth.Fingerprint("sk-1")
	for _, text := range []string{
		hex.EncodeToString(want[:]), strings.ToUpper(hex.EncodeToString(want[:])), "sha256:" + hex.EncodeToString(want[:]), " " + hex.EncodeToString(want[:]) + "\n",
		base64.StdEncoding.EncodeToString(want[:]), base64.RawStdEncoding.EncodeToString(want[:]),
		base64.URLEncoding.EncodeToString(want[:]), base64.RawURLEncoding.EncodeToString(want[:]),
	} {
		if got, err := auth.ParseFingerprint(text); err != nil || got != want {
			t.Errorf("%q: %x, %v", text, got, err)
		}
	}
	for _, text := range []string{"", "sk-1", strings.Repeat("g", 64), hex.EncodeToString(want[:31]), base64.StdEncoding.EncodeToString(want[:31]), hex.EncodeToString(want[:]) + "00"} {
		if _, err := auth.ParseFingerprint(text); err == nil {
			t.Errorf("%q is taken for a fingerprint", text)
		}
	}
}

func TestPeppersKeepTheirVersionsWhenOneIsPutInFront(t *testing.T) {
	t.Parallel()
	old, both := peppers(t, pepper1), peppers(t, pepper2, pepper1)
	before, err := old.Digest(1, "k")
	if err != nil {
		t.Fatal(err)
	}
	after, err := both.Digest(1, "k")
	if err != nil || before != after {
		t.Errorf("version 1 has changed its meaning: %v", err)
	}
	if newer, err := both.Digest(2, "k"); err != nil || newer == before || both.Live() != 2 {
		t.Errorf("the new pepper is not version 2: %v", err)
	}
	if _, err := old.Digest(2, "k"); err == nil {
		t.Error("a pepper that is not there digests")
	}
	if plain, err := old.Digest(0, "k"); err != nil || plain != auth.Fingerprint("k") {
		t.Errorf("version 0 is not plain SHA-256: %v", err)
	}
	for _, bad := range [][]string{{"short"}, {""}, {pepper1, pepper1}, make([]string, 300)} {
		if p, err := auth.NewPeppers(bad...); err == nil || p.Live() != 0 || strings.Contains(err.Error(), "short ") {
			t.Errorf("%d peppers are taken: %v", len(bad), err)
		}
	}
}

func TestSealedSecretsOpenForTheirKeyAlone(t *testing.T) {
	t.Parallel()
	old, both := peppers(t, pepper1), peppers(t, pepper2, pepper1)
	secret := auth.NewSigningSecret()
	sealed, err := old.Seal("AAAAAAAA", secret)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := both.Unseal("AAAAAAAA", sealed); err != nil || got.Reveal() != secret.Reveal() {
		t.Errorf("not the secret that was sealed: %v", err)
	}
	if _, err := both.Unseal("AAAAAAAB", sealed); err == nil {
		t.Error("it opens for another key")
	}
	if _, err := peppers(t, pepper2).Unseal("AAAAAAAA", sealed); err == nil {
		t.Error("it opens under another pepper")
	}
	for i := range sealed {
		changed := append([]byte(nil), sealed...)
		changed[i] ^= 1
		if _, err := both.Unseal("AAAAAAAA", changed); err == nil {
			t.Errorf("it opens with byte %d changed", i)
		}
		if _, err := both.Unseal("AAAAAAAA", sealed[:i]); err == nil {
			t.Errorf("it opens when cut at %d", i)
		}
	}
	if strings.Contains(string(sealed), secret.Reveal()[4:]) {
		t.Error("it is not sealed")
	}
}

func FuzzParseKey(f *testing.F) {
	f.Add("ar_0123abcd_0123456789012345678901234567890100abcd")
	f.Add(auth.NewKey().Reveal())
	f.Add("ar_")
	f.Add("")
	f.Fuzz(func(t *testing.T, text string) {
		key, err := auth.ParseKey(text)
		if err != nil {
			if key.Reveal() != "" || strings.Contains(err.Error(), text) && len(text) > 20 {
				t.Fatalf("a refusal gives or repeats the text: %v", err)
			}
			return
		}
		if key.Reveal() != text || len(text) != 50 || len(key.ID()) != 8 || strings.Trim(text[44:], base62) != "" {
			t.Fatalf("%q is taken for a key", text)
		}
	})
}

func FuzzParseFingerprint(f *testing.F) {
	f.Add(strings.Repeat("ab", 32))
	f.Add("sha256:" + strings.Repeat("A", 43))
	f.Fuzz(func(t *testing.T, text string) {
		d, err := auth.ParseFingerprint(text)
		if err == nil {
			if again, err := auth.ParseFingerprint(hex.EncodeToString(d[:])); err != nil || again != d {
				t.Fatalf("%q is read as %x, and that is not read back", text, d)
			}
		}
	})
}
