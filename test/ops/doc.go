// Package ops holds what operators get in deploy and docs/runbooks to the program that they operate: each query of a dashboard or an alert
// to the metrics that a running router exposes, each alert to its tests and its runbook, each command of a runbook to the command line.
//
// promtool judges the rules and every query. A test that needs a program which is not there skips, and says how to get it; with
// CONFORMANCE=required it fails.
package ops
