// Package conformance drives a running router from outside, as clients do: with the official OpenAI clients, unmodified, and with curl.
//
// The router is the one of "api-router dev", in this process and under the race detector, so that its code is part of the key under
// which Go caches the result. "make test" fetches the clients. Where they are missing the tests skip; with CONFORMANCE=required they fail.
package conformance
