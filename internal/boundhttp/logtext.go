package boundhttp

import (
	"errors"
	"fmt"

	"github.com/aws/smithy-go"
)

// LogText is what a log says of an error of the SDK: AWS's code and the request's number,
// and its words only where it is not AWS that speaks. Of a signature that does not fit AWS
// repeats the whole request, the session token included.
func LogText(err error) string {
	var api smithy.APIError
	if !errors.As(err, &api) {
		return fmt.Sprintf("%.1000s", err)
	}
	var answer interface{ ServiceRequestID() string }
	if errors.As(err, &answer) {
		return fmt.Sprintf("%.100s, request %.100s", api.ErrorCode(), answer.ServiceRequestID())
	}
	return fmt.Sprintf("%.100s", api.ErrorCode())
}
