// Package kubernetes proves the Helm chart, in a module of its own: the router does not carry Kubernetes's types. The module also pins
// Helm, which scripts/prepare builds from it.
package kubernetes
