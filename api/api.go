// Package api holds the description of the admin API as an OpenAPI document, for the router to serve and for clients to be made from.
package api

import _ "embed"

// OpenAPI is openapi.yaml.
//
//go:embed openapi.yaml
var OpenAPI []byte
