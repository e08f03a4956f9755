package s3

import (
	"context"
	"errors"
	"net/http"

	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/smithy-go"

	"timehub/hub"
)

// failed gives an error of the store its kind. What the store does not say clearly is Unavailable: nothing is known about what happened.
func failed(ctx context.Context, op, name string, err error) error {
	if err == nil {
		return nil
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	var known *hub.Error
	if errors.As(err, &known) {
		return err
	}
	code, status := "", 0
	var api smithy.APIError
	if errors.As(err, &api) {
		code = api.ErrorCode()
	}
	var answer *awshttp.ResponseError
	if errors.As(err, &answer) {
		status = answer.HTTPStatusCode()
	}
	kind, text := meaning(code, status)
	return hub.E(kind, "%s %s: %s", op, name, text).Because(err)
}

// meaning reads the code, and where there is none (answers to HEAD have no body), the status.
func meaning(code string, status int) (hub.Kind, string) {
	switch code {
	case "NoSuchKey", "NotFound":
		return hub.NotFound, "it is not stored"
	case "PreconditionFailed":
		return hub.Conflict, "the condition does not hold"
	case "InvalidRange":
		return hub.RangeInvalid, "it has no such byte"
	case "KeyTooLongError", "InvalidURI", "InvalidObjectName":
		return hub.Invalid, "the store takes no such name"
	case "QuotaExceeded", "XMinioStorageFull", "InsufficientCapacity":
		return hub.Full, "the store is full"
	case "NoSuchBucket":
		return hub.Unavailable, "the bucket does not exist"
	case "AccessDenied", "Forbidden", "InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken":
		return hub.Unavailable, "the store denies access"
	case "NoSuchUpload":
		return hub.Unavailable, "the upload is no longer known"
	case "NotImplemented":
		return hub.Unsupported, "the store cannot do that"
	case "EntityTooLarge":
		return hub.TooLarge, "the store takes no body of that size"
	}
	switch status {
	case http.StatusNotFound:
		return hub.NotFound, "it is not stored"
	case http.StatusPreconditionFailed:
		return hub.Conflict, "the condition does not hold"
	case http.StatusRequestedRangeNotSatisfiable:
		return hub.RangeInvalid, "it has no such byte"
	case http.StatusInsufficientStorage:
		return hub.Full, "the store is full"
	}
	return hub.Unavailable, "long-term storage does not answer as it should"
}

// Denied reports whether an error says that the bucket does not exist or that access to it is denied: that does not pass by itself.
func Denied(err error) bool {
	var api smithy.APIError
	if !errors.As(err, &api) {
		return false
	}
	switch api.ErrorCode() {
	case "NoSuchBucket", "AccessDenied", "Forbidden", "InvalidAccessKeyId", "SignatureDoesNotMatch":
		return true
	}
	return false
}

// raced reports that the store did not decide a condition, because somebody else wrote the name at the same time.
func raced(err error) bool {
	var api smithy.APIError
	return errors.As(err, &api) && (api.ErrorCode() == "ConditionalRequestConflict" || api.ErrorCode() == "OperationAborted")
}

// vanished is a multipart upload that was completed by a try whose answer was lost, or removed.
func vanished(err error) bool {
	var api smithy.APIError
	return errors.As(err, &api) && api.ErrorCode() == "NoSuchUpload"
}
