package policy

import (
	"errors"
	"fmt"
	"io"
	"os"
	"regexp"
	"strings"
)

// maxSecret bounds a secret's file, in bytes.
const maxSecret = 64 << 10

var (
	errDuration = errors.New("must be a duration with its unit, such as 2s, 100ms or 30m")
	// errNotReference never repeats the value: it may be the secret itself.
	errNotReference = errors.New("must be a reference and never the secret itself: " +
		"write env:NAME for an environment variable or file:PATH for a file that holds it")

	environmentName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)
)

// SecretRef says where a secret is: env:NAME or file:PATH. It cannot hold a secret, so printing it is safe.
type SecretRef struct{ text string }

// ParseSecretRef reads a reference. Its error does not repeat the text, which may be a secret that was put there by mistake.
func ParseSecretRef(text string) (SecretRef, error) {
	if name, ok := strings.CutPrefix(text, "env:"); ok && environmentName.MatchString(name) {
		return SecretRef{text}, nil
	}
	if path, ok := strings.CutPrefix(text, "file:"); ok && path != "" && !strings.ContainsFunc(path, isControl) {
		return SecretRef{text}, nil
	}
	return SecretRef{}, errNotReference
}

// IsZero says that there is no reference.
func (r SecretRef) IsZero() bool { return r.text == "" }

// String is the reference, never the secret.
func (r SecretRef) String() string { return r.text }

// MarshalText is String, for JSON.
func (r SecretRef) MarshalText() ([]byte, error) { return []byte(r.text), nil }

// UnmarshalText is ParseSecretRef; empty text is the zero reference.
func (r *SecretRef) UnmarshalText(text []byte) error {
	if len(text) == 0 {
		*r = SecretRef{}
		return nil
	}
	parsed, err := ParseSecretRef(string(text))
	if err != nil {
		return err
	}
	*r = parsed
	return nil
}

// Resolve reads the secret: at most 64 KiB, without the line breaks at its end. It is read anew at each call, so that a
// rotated file is seen. The zero reference gives "". An error names the reference and never holds any of the secret.
func (r SecretRef) Resolve() (string, error) {
	if r.IsZero() {
		return "", nil
	}
	value, err := r.read()
	if err != nil {
		return "", err
	}
	value = strings.TrimRight(value, "\r\n")
	if value == "" {
		return "", fmt.Errorf("secret %s is empty", r)
	}
	if strings.ContainsFunc(value, isControl) {
		return "", fmt.Errorf("secret %s holds a line break or another control character", r)
	}
	return value, nil
}

func (r SecretRef) read() (string, error) {
	if name, ok := strings.CutPrefix(r.text, "env:"); ok {
		value, set := os.LookupEnv(name)
		switch {
		case !set:
			return "", fmt.Errorf("secret %s: this environment variable is not set", r)
		case len(value) > maxSecret:
			return "", fmt.Errorf("secret %s is longer than %d bytes", r, maxSecret)
		}
		return value, nil
	}
	content, err := readFile(strings.TrimPrefix(r.text, "file:"), maxSecret)
	if err != nil {
		return "", fmt.Errorf("secret %s: %w", r, err)
	}
	return string(content), nil
}

// readFile reads a regular file of at most limit bytes. Anything else is refused before it is opened: a pipe would block.
func readFile(path string, limit int64) ([]byte, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is not a regular file", path)
	}
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = file.Close() }() // It was only read: nothing can be lost.
	content, err := io.ReadAll(io.LimitReader(file, limit+1))
	if err != nil {
		return nil, err
	}
	if int64(len(content)) > limit {
		return nil, fmt.Errorf("%s is larger than %d bytes", path, limit)
	}
	return content, nil
}

func isControl(r rune) bool { return r < ' ' || r == 0x7f }
