// Package e2e runs the built binary as operators do: several processes, a real etcd, the command line, and what goes wrong between them.
//
// Servers listen on loopback and end with their test. A test that needs a program which is not there skips, and says how to get it;
// with CONFORMANCE=required it fails.
package e2e
