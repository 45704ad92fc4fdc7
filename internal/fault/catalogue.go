package fault

import (
	"cmp"
	"net/http"
	"slices"
)

// Code names one kind of failure. It is part of the public contract: clients branch on it.
type Code string

// The codes, in the order of their HTTP status. Each has a page in docs/errors.
const (
	InvalidJSON          Code = "invalid_json"
	InvalidRequest       Code = "invalid_request"
	AmbiguousRequest     Code = "ambiguous_request"
	MissingAPIKey        Code = "missing_api_key"
	InvalidAPIKey        Code = "invalid_api_key"
	ExpiredAPIKey        Code = "expired_api_key"
	RevokedAPIKey        Code = "revoked_api_key"
	InvalidSignature     Code = "invalid_signature"
	OrganizationDisabled Code = "organization_disabled"
	IPNotAllowed         Code = "ip_not_allowed"
	PermissionDenied     Code = "permission_denied"
	ModelNotFound        Code = "model_not_found"
	NotFound             Code = "not_found"
	MethodNotAllowed     Code = "method_not_allowed"
	RequestTimeout       Code = "request_timeout"
	PreconditionFailed   Code = "precondition_failed"
	RequestTooLarge      Code = "request_too_large"
	UnsupportedMediaType Code = "unsupported_media_type"
	RateLimitExceeded    Code = "rate_limit_exceeded"
	QueueFull            Code = "queue_full"

	// ClientClosed is written to logs and records only: there is nobody left to answer.
	ClientClosed Code = "client_closed_request"

	InternalError              Code = "internal_error"
	BackendError               Code = "backend_error"
	BackendCredentialsRejected Code = "backend_credentials_rejected"
	BackendProtocolError       Code = "backend_protocol_error"
	NoBackendAvailable         Code = "no_backend_available"
	BackendOverloaded          Code = "backend_overloaded"
	ModelDisabled              Code = "model_disabled"
	IdentityUnavailable        Code = "identity_unavailable"
	StoreUnavailable           Code = "store_unavailable"
	Draining                   Code = "draining"
	BackendTimeout             Code = "backend_timeout"
)

// statusClientClosed is the status that nginx made customary for a client that left before its answer.
const statusClientClosed = 499

// The values of "type" in the envelope, as OpenAI uses them.
const (
	typeRequest        = "invalid_request_error"
	typeAuthentication = "authentication_error"
	typePermission     = "permission_error"
	typeRateLimit      = "rate_limit_error"
	typeServer         = "server_error"
)

// Entry is one line of the catalogue.
type Entry struct {
	Code   Code
	Status int
	Type   string
	// Retry says whether sending the same request again can help. It becomes the x-should-retry header, which OpenAI's SDKs obey.
	Retry bool
	// Title is the first line of the code's page in docs/errors.
	Title string
}

var catalogue = index([]Entry{
	{InvalidJSON, http.StatusBadRequest, typeRequest, false, "The body is not valid JSON"},
	{InvalidRequest, http.StatusBadRequest, typeRequest, false, "A field of the request is missing or has a value that cannot work"},
	{AmbiguousRequest, http.StatusBadRequest, typeRequest, false, "The request says two different things in one place"},
	{MissingAPIKey, http.StatusUnauthorized, typeAuthentication, false, "The request carries no API key"},
	{InvalidAPIKey, http.StatusUnauthorized, typeAuthentication, false, "The API key is not known here"},
	{ExpiredAPIKey, http.StatusUnauthorized, typeAuthentication, false, "The API key has reached the end of its time"},
	{RevokedAPIKey, http.StatusUnauthorized, typeAuthentication, false, "The API key was taken back"},
	{InvalidSignature, http.StatusUnauthorized, typeAuthentication, false, "The signature of the request is missing, wrong, too old, or used before"},
	{OrganizationDisabled, http.StatusForbidden, typePermission, false, "An operator has switched the key's organization off"},
	{IPNotAllowed, http.StatusForbidden, typePermission, false, "The key may not be used from this address"},
	{PermissionDenied, http.StatusForbidden, typePermission, false, "The credential is known, but may not do this"},
	{ModelNotFound, http.StatusNotFound, typeRequest, false, "No routing policy serves this model for this key"},
	{NotFound, http.StatusNotFound, typeRequest, false, "Nothing is served at this path"},
	{MethodNotAllowed, http.StatusMethodNotAllowed, typeRequest, false, "The path exists, but not for this HTTP method"},
	{RequestTimeout, http.StatusRequestTimeout, typeRequest, true, "The request's body did not arrive in time"},
	{PreconditionFailed, http.StatusPreconditionFailed, typeRequest, false, "What is there does not allow this change"},
	{RequestTooLarge, http.StatusRequestEntityTooLarge, typeRequest, false, "The request's body is larger than this router accepts"},
	{UnsupportedMediaType, http.StatusUnsupportedMediaType, typeRequest, false, "The body is not sent as plain JSON"},
	{RateLimitExceeded, http.StatusTooManyRequests, typeRateLimit, true, "More requests came than are allowed in this time"},
	{QueueFull, http.StatusTooManyRequests, typeRateLimit, true, "The router holds as much as it can"},
	{ClientClosed, statusClientClosed, typeRequest, false, "The client left before the answer was complete"},
	{InternalError, http.StatusInternalServerError, typeServer, true, "A bug of the router"},
	{BackendError, http.StatusBadGateway, typeServer, true, "Every backend that could be tried failed"},
	{BackendCredentialsRejected, http.StatusBadGateway, typeServer, false, "A backend refuses the router's own credential"},
	{BackendProtocolError, http.StatusBadGateway, typeServer, true, "A backend answered with something that is not a valid answer"},
	{NoBackendAvailable, http.StatusServiceUnavailable, typeServer, true, "No backend of this model can take a request now"},
	{BackendOverloaded, http.StatusServiceUnavailable, typeServer, true, "Every backend of this model says that it is full"},
	{ModelDisabled, http.StatusServiceUnavailable, typeServer, false, "An operator has switched this model off"},
	{IdentityUnavailable, http.StatusServiceUnavailable, typeServer, true, "Whose the API key is cannot be told now"},
	{StoreUnavailable, http.StatusServiceUnavailable, typeServer, true, "The store of the documents cannot be reached"},
	{Draining, http.StatusServiceUnavailable, typeServer, true, "This router is shutting down"},
	{BackendTimeout, http.StatusGatewayTimeout, typeServer, true, "A backend did not answer in time"},
})

func index(entries []Entry) map[Code]Entry {
	byCode := make(map[Code]Entry, len(entries))
	for _, e := range entries {
		byCode[e.Code] = e
	}
	return byCode
}

// Catalogue lists every code by status, then by name.
func Catalogue() []Entry {
	entries := make([]Entry, 0, len(catalogue))
	for _, e := range catalogue {
		entries = append(entries, e)
	}
	slices.SortFunc(entries, func(a, b Entry) int {
		return cmp.Or(cmp.Compare(a.Status, b.Status), cmp.Compare(a.Code, b.Code))
	})
	return entries
}
