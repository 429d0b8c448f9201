package awstest

// dataState is what CodeBuild, S3, KMS and Signer hold. Each part has a lock of its own.
type dataState struct {
	builds *buildStore
	s3     *s3Store
	kms    *kmsStore
	signer *signerStore
}

// dataServices are CodeBuild, S3, KMS and Signer.
func (w *World) dataServices() map[string]service {
	w.data = dataState{builds: newBuildStore(), s3: newS3Store(), kms: newKMSStore(), signer: newSignerStore()}
	return map[string]service{
		"codebuild": {protocol: jsonRPC, target: "CodeBuild_20161006", serve: w.serveCodeBuild},
		"s3":        {protocol: restXML, action: s3Action, serve: w.serveS3},
		"kms":       {protocol: jsonRPC, target: "TrentService", serve: w.serveKMS},
		"signer":    {protocol: restJSON, action: signerAction, serve: w.serveSigner},
	}
}
