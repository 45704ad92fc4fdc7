// Package conformance drives a running router from outside, as clients do: with published SDKs, unmodified, and with curl. README.md
// tells which, and what each is tested for.
//
// The router runs in this process and under the race detector, so that its code is part of the key under which Go caches the result.
// "make test" fetches the SDKs. Where they are missing the tests skip; with CONFORMANCE=required they fail.
package conformance
