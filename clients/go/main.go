// Lists the models of a bgan server, samples images, and shows what an error says: sample localhost:50051 100.
// It prints one JSON object. README.md beside it says how to make the stubs.
package main

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"io"
	"log"
	"os"
	"strconv"
	"time"

	pb "bgan/v1"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/status"
)

// names follows the pages of models.
func names(ctx context.Context, client pb.SamplingServiceClient) (names []string, err error) {
	request := &pb.ListModelsRequest{PageSize: 1}
	for {
		page, err := client.ListModels(ctx, request)
		if err != nil {
			return nil, err
		}
		for _, served := range page.Models {
			names = append(names, served.Model.Name)
		}
		if request.PageToken = page.NextPageToken; request.PageToken == "" {
			return names, nil
		}
	}
}

// sample returns the packed images of a stream.
func sample(ctx context.Context, client pb.SamplingServiceClient, request *pb.SampleBinaryImagesRequest) (images []byte, err error) {
	stream, err := client.SampleBinaryImages(ctx, request)
	if err != nil {
		return nil, err
	}
	for {
		batch, err := stream.Recv()
		if err == io.EOF {
			return images, nil
		}
		if err != nil {
			return nil, err
		}
		images = append(images, batch.PackedImages...)
	}
}

// reason is what the details of an error call it.
func reason(err error) string {
	for _, detail := range status.Convert(err).Details() {
		if info, is := detail.(*errdetails.ErrorInfo); is {
			return info.Domain + "/" + info.Reason
		}
	}
	return ""
}

func main() {
	count, err := strconv.ParseInt(os.Args[2], 10, 64)
	check(err)
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	connection, err := grpc.DialContext(ctx, os.Args[1], grpc.WithInsecure())
	check(err)
	defer connection.Close()
	client := pb.NewSamplingServiceClient(connection)

	found, err := names(ctx, client)
	check(err)
	seed := int64(1)
	images, err := sample(ctx, client, &pb.SampleBinaryImagesRequest{Model: found[0], ImageCount: count, Seed: &seed})
	check(err)
	_, err = client.GetModel(ctx, &pb.GetModelRequest{Name: "no-such-model"})
	answer := map[string]any{"names": found, "images": hex.EncodeToString(images), "error": reason(err)}
	check(json.NewEncoder(os.Stdout).Encode(answer))
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
