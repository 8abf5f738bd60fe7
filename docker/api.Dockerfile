# Build from the repository's root: docker build -f docker/api.Dockerfile -t fleet-api .
FROM mcr.microsoft.com/dotnet/sdk:10.0 AS build
WORKDIR /source
COPY global.json Directory.Build.props Directory.Packages.props BannedSymbols.txt .editorconfig ./
COPY src/Contracts/ src/Contracts/
COPY src/Data/ src/Data/
COPY src/Api/ src/Api/
RUN dotnet publish src/Api --configuration Release --output /app -p:CI=true -p:OpenApiGenerateDocuments=false \
 && mkdir /data

FROM mcr.microsoft.com/dotnet/aspnet:10.0
# The base image has no curl or wget: bash opens the socket of the health check itself.
WORKDIR /app
COPY --from=build /app ./
COPY --from=build --chown=$APP_UID:$APP_UID --chmod=700 /data /data
# The base image sets ASPNETCORE_HTTP_PORTS, which would compete with the address below.
ENV ASPNETCORE_HTTP_PORTS= \
    ASPNETCORE_URLS=http://+:5480 \
    Fleet__DataFolder=/data
# Plain http beyond loopback is refused unless Fleet__AllowPlainHttp=true is given, which is for private container networks.
USER $APP_UID
VOLUME /data
EXPOSE 5480
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=3s --start-period=10s --retries=3 \
    CMD ["bash", "-c", "exec 3<>/dev/tcp/127.0.0.1/5480 && printf 'GET /health/ready HTTP/1.1\\r\\nHost: localhost\\r\\nConnection: close\\r\\n\\r\\n' >&3 && head -n 1 <&3 | grep -q ' 200 '"]
ENTRYPOINT ["dotnet", "Fleet.Api.dll"]
