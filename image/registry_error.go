package image

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"path"
	"strings"

	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
	"golang.org/x/sys/unix"
)

// passing tells whether an error of the network may be gone the next time.
func passing(err error) bool {
	var timeout net.Error
	return errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, unix.ECONNRESET) || errors.Is(err, unix.EPIPE) ||
		errors.Is(err, io.EOF) || errors.As(err, &timeout) && timeout.Timeout()
}

// registryError turns what a registry, or the way to it, says into one line.
func registryError(ref Reference, err error) error {
	if err == nil {
		return nil
	}
	what := ref.Familiar()
	if e, ok := errors.AsType[*Error](err); ok {
		if strings.HasPrefix(e.Message, "pulling ") {
			return e
		}
		return &Error{Message: fmt.Sprintf("pulling %q from %s: %s", what, ref.domain, e.Message), Remedy: e.Remedy, Err: err}
	}
	fault := func(remedy, format string, args ...any) error {
		return &Error{Message: fmt.Sprintf("pulling %q: ", what) + fmt.Sprintf(format, args...), Remedy: remedy, Err: err}
	}
	var status *transport.Error
	var dns *net.DNSError
	var cert *x509.UnknownAuthorityError
	var unknown x509.UnknownAuthorityError
	var host x509.HostnameError
	var timeout net.Error
	var inner *innerError
	var plain *plainError
	var slow *slowError
	switch {
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return err
	case errors.As(err, &status):
		return statusError(ref, status, fault)
	case errors.As(err, &inner):
		return fault("tell the registry's operator", "registry %s does not behave: %v", ref.domain, inner)
	case errors.As(err, &plain):
		return fault("if you trust the network: --tls-verify=false", "registry %s does not behave: %v", ref.domain, plain)
	case errors.Is(err, unix.ECONNREFUSED):
		return fault("check the registry's address, and that it runs", "nothing listens at %s (connection refused)", ref.domain)
	case errors.As(err, &dns):
		return fault("check the registry's name and your network", "cannot find %s: %s", dns.Name, dns.Err)
	case errors.As(err, &cert), errors.As(err, &unknown), errors.As(err, &host):
		return fault("if you trust the network: --tls-verify=false", "the certificate of %s is not good: %s", ref.domain, rootCause(err))
	case errors.Is(err, errPlainHTTP), strings.Contains(err.Error(), "server gave HTTP response to HTTPS client"):
		return fault("if you trust the network: --tls-verify=false", "registry %s speaks plain http", ref.domain)
	case errors.As(err, &slow):
		return fault("try again", "%s: %v", ref.domain, slow)
	case errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, unix.ECONNRESET), errors.Is(err, io.EOF):
		return fault("try again", "%s cut the connection off half way", ref.domain)
	case errors.As(err, &timeout) && timeout.Timeout():
		return fault("check your network, and try again", "%s does not answer", ref.domain)
	}
	return fault("", "%s: %s", ref.domain, rootCause(err))
}

func statusError(ref Reference, e *transport.Error, fault func(remedy, format string, args ...any) error) error {
	says := ""
	if len(e.Errors) > 0 && e.Errors[0].Message != "" {
		says = ": " + rootCause(errors.New(e.Errors[0].Message))
	}
	login := fmt.Sprintf("check the name; if it is private, log in: podman login %s, or docker login %s", ref.domain, ref.domain)
	switch e.StatusCode {
	case http.StatusNotFound:
		if e.Request != nil && strings.Contains(e.Request.URL.Path, "/blobs/") {
			return fault("tell the image's maker", "%s has lost a part of it: %s", ref.domain, path.Base(e.Request.URL.Path))
		}
		return fault("check the spelling of name and tag", "there is no such image at %s", ref.domain)
	case http.StatusUnauthorized:
		return fault(login, "unauthorized at %s: it asks for a password", ref.domain)
	case http.StatusForbidden:
		return fault(login, "%s does not let you have it%s", ref.domain, says)
	case http.StatusTooManyRequests:
		return fault("wait, or log in for a higher limit", "%s says: too many requests", ref.domain)
	}
	return fault("", "%s answered %d %s%s", ref.domain, e.StatusCode, http.StatusText(e.StatusCode), says)
}
