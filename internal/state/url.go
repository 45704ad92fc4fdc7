package state

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"path/filepath"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5/pgxpool"
)

// CheckURL says what is wrong with a URL of a book, without repeating it: it may hold a password. It looks nothing up and dials nothing.
func CheckURL(text string) error {
	_, err := engineOf(Options{URL: text})
	return err
}

// Name is which book a URL names, wherever its server is now: the file's path, or the database and what finds its schema. "" where the URL cannot be
// read.
func Name(text string) string {
	if !isPostgres(text) {
		path, err := pathOf(text)
		if err != nil {
			return ""
		}
		return "sqlite:" + path
	}
	address, parameters, _ := strings.Cut(text, "?")
	query, err := url.ParseQuery(parameters)
	if err != nil {
		return ""
	}
	query.Set("sslmode", "disable") // No certificate is part of the name, and one that the URL names may come yet.
	query.Set("sslrootcert", "")
	config, _, err := poolOf(address + "?" + query.Encode())
	if err != nil {
		return ""
	}
	return "postgres:" + config.ConnConfig.Database + " " + config.ConnConfig.RuntimeParams["search_path"]
}

// MaybePlain gives the hosts of a PostgreSQL URL to which a connection may turn out to be without TLS though nobody has decided that: where
// neither the URL nor PGSSLMODE has an sslmode, a server that says that it has no TLS is believed, whoever it is. Sockets and loopback addresses of
// this machine are not among them.
func MaybePlain(text string) []string {
	if !isPostgres(text) {
		return nil
	}
	config, _, err := poolOf(text)
	if err != nil {
		return nil
	}
	type way struct{ secured, plain bool }
	ways, hosts := map[string]way{}, []string{}
	add := func(host string, secured bool) {
		w, known := ways[host]
		if !known {
			hosts = append(hosts, host)
		}
		ways[host] = way{w.secured || secured, w.plain || !secured}
	}
	add(config.ConnConfig.Host, config.ConnConfig.TLSConfig != nil)
	for _, f := range config.ConnConfig.Fallbacks {
		add(f.Host, f.TLSConfig != nil)
	}
	return slices.DeleteFunc(hosts, func(host string) bool {
		ip := net.ParseIP(host)
		here := host == "localhost" || ip != nil && ip.IsLoopback() || strings.HasPrefix(host, "/") || strings.HasPrefix(host, "@")
		return here || !ways[host].secured || !ways[host].plain
	})
}

// engineOf reads a URL.
func engineOf(o Options) (engine, error) {
	if isPostgres(o.URL) {
		return newPostgres(o)
	}
	path, err := pathOf(o.URL)
	if err != nil {
		return nil, err
	}
	return sqliteEngine{path}, nil
}

func isPostgres(text string) bool {
	return strings.HasPrefix(text, "postgres:") || strings.HasPrefix(text, "postgresql:")
}

// pathOf reads the URL of a SQLite file.
func pathOf(text string) (string, error) {
	rest, ok := strings.CutPrefix(text, "sqlite:")
	switch {
	case !ok:
		return "", errors.New("must begin with sqlite: or postgres:, as in sqlite:///var/lib/api-router/state.db or postgres://router@db.internal/router")
	case strings.HasPrefix(rest, "//") && !strings.HasPrefix(rest, "///"):
		return "", errors.New("needs three slashes before an absolute path, as in sqlite:///var/lib/api-router/state.db, and none before a relative one")
	case strings.ContainsAny(rest, "?#"):
		return "", errors.New("must not have a query or a fragment")
	case rest == ":memory:":
		return "", errors.New("must name a file: a book that is gone with the process keeps nothing")
	}
	path, err := url.PathUnescape(strings.TrimPrefix(rest, "//"))
	if err != nil || strings.ContainsRune(path, 0) {
		return "", errors.New("has a % that is no escape: write %25 for the sign itself")
	}
	if path == "" || strings.HasSuffix(path, "/") {
		return "", errors.New("must name a file, as in sqlite:///var/lib/api-router/state.db")
	}
	return filepath.Abs(path)
}

var errPassword = errors.New("must not hold a password, which would show wherever the URL does: " +
	"name the environment variable or the file that has it in state.password")

// cutsPassword reports whether an authority without a user looks like the user and the beginning of a password: a / or a ? in that ends it, and the
// rest, up to the @, would be taken for a path or for parameters, and shown.
func cutsPassword(authority, rest string) bool {
	beforeValues, _, _ := strings.Cut(rest, "=")
	if !strings.ContainsRune(rest, '@') || !strings.ContainsRune(authority, ':') {
		return false
	}
	return strings.ContainsRune(beforeValues, '@') || slices.ContainsFunc(strings.Split(authority, ","), func(host string) bool {
		port := host[strings.LastIndexAny(host, ":]")+1:]
		return strings.ContainsRune(host, ':') && strings.Trim(port, "0123456789") != ""
	})
}

// poolOf reads the URL of a PostgreSQL database. What it leaves out comes from the standard variables (PGHOST, PGPASSWORD and so on).
// place is the URL without its parameters. The error wraps fs.ErrNotExist where a file that it names is not there.
func poolOf(text string) (config *pgxpool.Config, place string, err error) {
	_, rest, found := strings.Cut(text, "://")
	if !found {
		return nil, "", errors.New("is not of the form postgres://user@host/database")
	}
	place, parameters, _ := strings.Cut(rest, "?")
	authority, _, _ := strings.Cut(place, "/")
	if at := strings.LastIndexByte(authority, '@'); at >= 0 && strings.ContainsRune(authority[:at], ':') || at < 0 && cutsPassword(authority, rest[len(authority):]) {
		return nil, "", errPassword
	}
	query, err := url.ParseQuery(parameters)
	if err != nil || strings.ContainsRune(rest, '#') {
		return nil, "", errors.New("has parameters that cannot be read: write them as ?name=value&name=value, with % escapes")
	}
	if query.Has("password") || query.Has("sslpassword") {
		return nil, "", errPassword
	}
	config, err = pgxpool.ParseConfig(text)
	if err != nil {
		err = fmt.Errorf("cannot be used: %w", err)
	}
	return config, "postgres://" + place, err
}
