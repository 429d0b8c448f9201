package awstest

// dataState is what CodeBuild and S3 hold. Each part has a lock of its own.
type dataState struct {
	builds *buildStore
	s3     *s3Store
}

// dataServices are CodeBuild and S3.
func (w *World) dataServices() map[string]service {
	w.data = dataState{builds: newBuildStore(), s3: newS3Store()}
	return map[string]service{
		"codebuild": {protocol: jsonRPC, target: "CodeBuild_20161006", serve: w.serveCodeBuild},
		"s3":        {protocol: restXML, action: s3Action, serve: w.serveS3},
	}
}
